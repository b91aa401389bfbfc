"""The plan of the house: which wing stands on which, what may be imported where, and how long a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
COMMANDS, FRONT_DOOR = {"train", "evaluate"}, "__main__"
GROUND_FLOOR = {
    *(
        "run_folder",
        "files",
        "machine",
        "progress",
        "errors",
        "signals",
        "processes",
        "shell",
        "untrusted",
        "metric_names",
    ),
}
FLOORS = [  # a module imports from its own wing and from lower floors; on the ground floor, from its neighbours too
    COMMANDS | {FRONT_DOOR, "cifar10"},
    {"training", "evaluation", "exploration"},
    {"inference"},
    {"commandline"},
    {"callbacks"},
    {"models"},
    {"data"},
    {"sweeps"},
    {"report"},
    GROUND_FLOOR,
]
LONGEST_FILE = 250  # lines
TOP_LEVEL = {
    *("train.py", "evaluate.py", "cifar10", "conf", "tests", "docs", "outputs"),
    *("README.md", "Makefile", "pyproject.toml", "requirements.lock", "constraints.txt", ".gitignore", ".ci"),
    *("LICENSE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile", ".dockerignore"),
    *(".github", ".pre-commit-config.yaml"),
}

Imports = dict[str, set[str]]  # by module, the names that it imports, wherever in the file


def package_files(project: Path) -> list[Path]:
    return sorted((project / "cifar10").rglob("*.py"))


def read_imports(project: Path) -> Imports:
    """Imports of the two commands and of every module of the package; relative ones are resolved."""
    files = [*(project / f"{name}.py" for name in COMMANDS), *package_files(project)]
    return {module_name(file, project): set(imported_names(file, project)) for file in files}


def module_name(file: Path, project: Path) -> str:
    parts = file.relative_to(project).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(file: Path, project: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(project).parent.parts[: 1 - node.level or None] if node.level else ()
            base = ".".join([*package, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wing(name: str) -> str:
    """`models` for cifar10.models.networks.cnn.CNN; the first part for what is outside the package."""
    first, *others = name.split(".")
    return others[0] if first == "cifar10" and others else first


def upward(imports: Imports) -> list[str]:
    """Imports of a higher floor, of another wing on the same floor, and of what is on no floor."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    ours = COMMANDS | {"cifar10", "tests"}
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name in sorted(names)
        if name.split(".")[0] in ours
        and wing(module) != wing(name)
        and not {wing(module), wing(name)} <= GROUND_FLOOR
        and not floor.get(wing(module), len(FLOORS)) < floor.get(wing(name), -1)
    ]


def circles(imports: Imports) -> list[str]:
    """The first circle of modules that import one another."""
    graph = {
        module: {known for name in names if (known := in_package(name, imports))} - {module}
        for module, names in imports.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def in_package(name: str, imports: Imports) -> str | None:
    """The module that holds this name; None for what is outside the package."""
    return next((known for known in (name, name.rpartition(".")[0]) if known in imports), None)


def outsiders(imports: Imports, wing_of: str, allowed: set[str]) -> list[str]:
    """Imports of modules below `wing_of` of anything but the standard library and the packages allowed."""
    allowed = allowed | sys.stdlib_module_names
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        if f"{module}.".startswith(f"{wing_of}.")
        for name in sorted(names)
        if name.split(".")[0] not in allowed and not f"{name}.".startswith(f"{wing_of}.")
    ]


def long_files(project: Path) -> list[str]:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in package_files(project)}
    return [f"{file.relative_to(project)}: {lines} lines" for file, lines in lengths.items() if lines > LONGEST_FILE]


def loose_modules(project: Path) -> list[str]:
    """Modules directly in the package, but for the ground floor, and folders that are no wing."""
    wings = set().union(*FLOORS[1:-1])
    found = [path for path in (project / "cifar10").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))]
    return [
        path.name
        for path in found
        if path.stem not in (wings if path.is_dir() else GROUND_FLOOR | {"__init__", FRONT_DOOR})
    ]


RULES = {
    "imports go down only": lambda project: upward(read_imports(project)),
    "imports make no circle": lambda project: circles(read_imports(project)),
    "networks import torch alone": lambda project: outsiders(
        read_imports(project), "cifar10.models.networks", {"torch"}
    ),
    "no file is longer than a few screens": long_files,
    "no module lies outside a wing but the ground floor": loose_modules,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_built_to_its_plan(rule):
    violations = RULES[rule](PROJECT)
    assert not violations, "\n".join(violations)


VIOLATIONS = {
    "imports go down only": [
        ("cifar10/report/tables.py", "from cifar10.models.cnn import ScratchCNN"),
        ("cifar10/models/cnn.py", "def late():\n    import cifar10.commandline.command"),
        ("cifar10/evaluation/steps.py", "from cifar10.training import build"),
        ("cifar10/files.py", "from .data import split"),
        ("cifar10/data/split.py", "from tests import conftest"),
        ("cifar10/training/run.py", "from train import main"),
        ("cifar10/exploration/page.py", "from cifar10.evaluation import steps"),
        ("cifar10/commandline/command.py", "from cifar10.__main__ import main"),
        ("cifar10/models/cnn.py", "from cifar10 import callbacks"),
    ],
    "imports make no circle": [
        ("cifar10/models/cnn.py", "from cifar10.models import cnn_too\n"),
        ("cifar10/files.py", "from cifar10.errors import UserError"),
    ],
    "networks import torch alone": [
        ("cifar10/models/networks/cnn.py", "import timm"),
        ("cifar10/models/networks/cnn.py", "from cifar10.models.weights import load"),
    ],
    "no file is longer than a few screens": [("cifar10/data/split.py", "\n" * (LONGEST_FILE + 1))],
    "no module lies outside a wing but the ground floor": [
        ("cifar10/helpers.py", ""),
        ("cifar10/utils/text.py", ""),
    ],
}


@pytest.mark.parametrize(
    ("rule", "file", "text"), [(rule, *each) for rule, found in VIOLATIONS.items() for each in found]
)
def test_a_house_that_breaks_the_plan_is_found_out(tmp_path, rule, file, text):
    house = {
        "train.py": "from cifar10.commandline.command import command",
        "evaluate.py": "import json",
        "cifar10/commandline/command.py": "import cifar10.files",
        "cifar10/models/cnn_too.py": "from cifar10.models.cnn import ScratchCNN",
        "cifar10/models/networks/cnn.py": "import math\nfrom torch import nn\nimport cifar10.models.networks.block",
        "cifar10/errors.py": "def late():\n    from cifar10 import files",
    }
    for name, content in house.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert RULES[rule](tmp_path) == []
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert RULES[rule](tmp_path) != []


def test_every_wing_of_the_plan_is_there():
    wings = set().union(*FLOORS[1:-1])
    assert {name for name in wings if (PROJECT / "cifar10" / name).is_dir()} == wings
    assert {name for name in GROUND_FLOOR if (PROJECT / "cifar10" / f"{name}.py").is_file()} == GROUND_FLOOR


def modules_in(place: str) -> list[str]:
    """The modules of a wing, or of the one file of this name."""
    below = PROJECT / "cifar10" / place
    return [module_name(file, PROJECT) for file in sorted([*below.rglob("*.py"), *below.parent.glob(f"{place}.py")])]


def torch_is_imported_by(*modules: str) -> bool:
    code = f"import {', '.join(modules)}, sys; print('torch' in sys.modules)"
    return (
        subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=True).stdout == b"True\n"
    )


@pytest.mark.parametrize("place", ["commandline", "run_folder", FRONT_DOOR])
def test_what_answers_before_torch_is_loaded_does_not_load_it(place):
    assert modules_in(place) and not torch_is_imported_by(*modules_in(place))


def test_an_import_of_torch_behind_another_module_is_seen():
    assert torch_is_imported_by("cifar10.models.classifier")


def test_the_top_of_the_repository_holds_what_the_plan_says():
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone of the repository")
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} == TOP_LEVEL
