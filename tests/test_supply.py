"""What the project is built from: the lock, the constraints and the bounds of pyproject.toml say the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PROJECT = Path(__file__).parent.parent
CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text())
EXTRAS = CONFIG["project"]["optional-dependencies"]
NOT_LOCKED = {"ray", "trackio"}  # see pyproject.toml
MALICIOUS = ("2.6.2", "2.6.3")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = [
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "aarch64"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
]


def entries(text: str) -> list[str]:
    """The requirements of a file, each on one line, without comments."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


LOCK, CONSTRAINTS = ((PROJECT / name).read_text() for name in ("requirements.lock", "constraints.txt"))
LOCKED = [Requirement(entry.partition(" --hash")[0]) for entry in entries(LOCK)]


def expand(extra: str) -> list[Requirement]:
    """The packages of an extra, with those of the extras that it names."""
    found = [Requirement(text) for text in EXTRAS[extra]]
    inner = [name for one in found if one.name == "cifar10" for name in one.extras]
    return [one for one in found if one.name != "cifar10"] + [one for name in inner for one in expand(name)]


WANTED = [*map(Requirement, CONFIG["project"]["dependencies"]), *expand("dev")]


def test_every_package_of_the_lock_has_hashes_and_one_version():
    for entry in entries(LOCK):
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^;]+?)?( --hash=sha256:[0-9a-f]{64})+", entry), entry[:100]


@pytest.mark.parametrize("name", ["requirements.lock", "constraints.txt"])
def test_no_address_is_in_a_list_of_packages(name):
    text = (PROJECT / name).read_text()
    assert "://" not in text and not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links)\b", text, re.MULTILINE)
    assert "@" not in text


def test_constraints_are_the_lock_without_its_hashes():
    assert entries(CONSTRAINTS) == [entry.partition(" --hash")[0] for entry in entries(LOCK)]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: "-".join(platform.values()))
def test_each_python_and_platform_gets_one_version_of_everything_within_its_bounds(python, platform):
    where = {**platform, "python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    found: dict[str, list[str]] = {}
    for one in LOCKED:
        if one.marker is None or one.marker.evaluate(where):
            found.setdefault(canonicalize_name(one.name), []).append(next(iter(one.specifier)).version)
    assert all(len(versions) == 1 for versions in found.values())
    for one in WANTED:
        if one.marker is None or one.marker.evaluate(where):
            [version] = found[canonicalize_name(one.name)]
            assert one.specifier.contains(version), f"{one} is locked at {version}"


def test_every_extra_is_in_dev_but_those_that_the_lock_leaves_out():
    [inner] = [Requirement(text).extras for text in EXTRAS["dev"] if text.startswith("cifar10[")]
    assert inner == set(EXTRAS) - NOT_LOCKED - {"dev"}


def test_the_group_for_uv_is_the_extra_of_this_very_version():
    assert CONFIG["dependency-groups"] == {"dev": [f"cifar10[dev]=={CONFIG['project']['version']}"]}


def test_malicious_uploads_are_shut_out():
    [lightning] = [one for one in WANTED if one.name == "pytorch-lightning"]
    assert not any(lightning.specifier.contains(version) for version in MALICIOUS)
    assert not any(f"pytorch-lightning=={version}" in LOCK for version in MALICIOUS)


@pytest.mark.parametrize("extra", ["joblib", "slurm", "ray"])
def test_plugins_of_the_next_hydra_are_shut_out(extra):
    [plugin] = [one for one in expand(extra) if one.name.startswith("hydra-")]
    assert not any(plugin.specifier.contains(version, prereleases=True) for version in ("1.4.0rc1", "1.4.0"))


def test_every_python_that_is_promised_is_checked():
    workflow = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    [job] = workflow["jobs"].values()
    assert tuple(job["strategy"]["matrix"]["python"]) == PYTHONS
    assert workflow["permissions"] == {"contents": "read"}
    assert (
        CONFIG["project"]["requires-python"] == f">={PYTHONS[0]}" == f">={CONFIG['tool']['pyright']['pythonVersion']}"
    )


def test_the_version_is_the_same_wherever_it_stands():
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == CONFIG["project"]["version"]
    assert CONFIG["project"]["version"] in (PROJECT / "CHANGELOG.md").read_text()


def test_hooks_run_what_make_lint_runs():
    [local] = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    rules = subprocess.run(["make", "-n", "lint"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert " ".join(hook["entry"].split()[:2]).removesuffix(" --pythonpath") in rules


def test_what_the_image_is_built_from_is_not_ignored():
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept >= {"cifar10", "conf", "train.py", "evaluate.py", "pyproject.toml", "requirements.lock", "README.md"}
    assert all((PROJECT / name).exists() for name in kept)
    assert "--require-hashes" in (PROJECT / "Dockerfile").read_text()


def test_types_are_shipped():
    assert (PROJECT / "cifar10" / "py.typed").exists()
    assert CONFIG["tool"]["setuptools"]["package-data"]["cifar10"] == ["py.typed"]
