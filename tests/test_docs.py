"""The pages in docs/ and the READMEs: what they tell a reader to type runs, and what they point to is there."""

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar10.models import backbones, efficientnet
from tests import reference
from tests.conftest import PROJECT, TINY_BACKBONE

PAGES = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md")), *sorted(PROJECT.glob("tests/**/README.md"))]
SMALL = {
    "train.py": {
        **{"data.batch_size": "80", "data.eval_batch_size": "40", "data.image_size": "32", "trainer.compile": "false"},
        **{"trainer.max_epochs": "1", "+trainer.limit_train_batches": "2", "+trainer.limit_val_batches": "1"},
        "trainer.enable_progress_bar": "false",
    },
    "export": {"check_images": "20", "max_drop": "1.0"},
    "explore": {"backbone": TINY_BACKBONE, "pretrained": "false", "image_size": "32", "images": "60"},
}
DRAWN = {"data": "shapes", "data.train_size": "160", "data.val_size": "40"}  # in place of CIFAR-10


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def shown_file(text: str) -> str | None:
    """The path of the file that a block shows: a comment in one of its first two lines."""
    found = re.search(r"^# ((?:cifar10|conf)/[\w/]+\.(?:py|yaml))$", "\n".join(text.splitlines()[:2]), re.MULTILINE)
    return found and found[1]


class Reader:
    """Does what a page says, in the current folder: commands run small, and the files that it shows are written."""

    def __init__(self, command, shapes_root: Path, monkeypatch: pytest.MonkeyPatch):
        self.command, self.shapes_root, self.monkeypatch = command, shapes_root, monkeypatch
        self.ran: list[str] = []

    def read(self, page: Path) -> None:
        for language, text in blocks(page):
            if name := shown_file(text):
                self.write(Path(name), text)
            elif language == "bash":
                for line in text.replace("\\\n", "").splitlines():
                    self.type(line)
            elif language == "python":
                self.execute(text)

    def write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if file.suffix == ".py":  # as if it lay in the package
            package = importlib.import_module(".".join(file.parent.parts))
            self.monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent.absolute())])
            name = ".".join(file.with_suffix("").parts)
            self.monkeypatch.setitem(sys.modules, name, None)  # so that it is forgotten afterwards
            del sys.modules[name]

    def type(self, line: str) -> None:
        """Run a command of ours; others, and the server, which waits for Ctrl-C, are passed over."""
        words = shlex.split(line, comments=True)
        if words[:1] != ["python"] or "serve" in words:
            return
        script, arguments = (words[1], words[2:]) if words[1] != "-m" else ("cifar10/__main__.py", words[3:])
        arguments = [newest(argument).replace("=0,1,2", "=0,1") for argument in arguments]
        small = SMALL.get(words[3] if words[1] == "-m" else script, {})
        if script == "train.py" and not any(argument.startswith(("data=", "data.root=")) for argument in arguments):
            small = small | DRAWN | {"data.root": str(self.shapes_root)}
        if any(argument.startswith("resume=") for argument in arguments):
            small = {}
        given = [argument for argument in arguments if argument.partition("=")[0] not in small]
        given += [f"--config-dir={Path('conf').absolute()}"] * (Path("conf").is_dir() and script == "train.py")
        code = self.command(script, *given, *(f"{key}={value}" for key, value in small.items()))
        assert code == 0, f"{line}\n{self.command.out}\n{self.command.err}"
        self.ran.append(line)

    def execute(self, text: str) -> None:
        text = text.replace('root="data"', f'root="{self.shapes_root}", source="shapes"').replace(
            "epochs=3", "epochs=1"
        )
        exec(newest(text), {})


def newest(text: str) -> str:
    """The text with every path that holds DATE_TIME replaced by the newest one of its kind."""
    for place in set(re.findall(r"[\w/-]*DATE_TIME", text)):
        *_, last = sorted(Path().glob(place.replace("DATE_TIME", "*-*-*_*-*-*")))
        text = text.replace(place, str(last))
    return text


@pytest.fixture
def reader(command, shapes_root, trained, tmp_path, monkeypatch) -> Reader:
    """In a folder with pictures; every backbone is a tiny one with random weights."""
    create = backbones.create_backbone
    for module in (backbones, efficientnet):
        monkeypatch.setattr(
            module, "create_backbone", lambda name, pretrained, *rest: create(TINY_BACKBONE, False, *rest)
        )
    rng = np.random.default_rng(0)
    names = ["photo.jpg", "cat.jpg", "dog.jpg", "holiday/1.jpg", "holiday/2.jpg"]
    names += [f"photos/{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(30)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    return Reader(command, shapes_root, monkeypatch)


def has_run(trained: Path) -> None:
    shutil.copytree(trained, "outputs/cnn/2026-01-31_12-00-00")


def test_the_tutorial_can_be_followed_from_the_first_command_to_the_last(reader):
    reader.read(PROJECT / "docs" / "tutorial.md")
    assert len(reader.ran) > 4 and list(Path().glob("outputs/comparisons/*/report.html"))


def test_own_pictures_are_explored_trained_on_and_classified(reader):
    pytest.importorskip("cleanlab")
    reader.read(PROJECT / "docs" / "own-pictures.md")
    assert list(Path().glob("outputs/explore/*/explore.html")) and list(Path().glob("outputs/photos/*/split.csv"))


def test_what_the_page_on_own_models_adds_is_trained(reader):
    reader.read(PROJECT / "docs" / "own-model.md")
    for name in ("mlp", "digits", "watched", "unfreeze_all"):
        assert any(name in line for line in reader.ran)


def test_a_trained_model_is_put_to_use_as_the_page_says(reader, trained):
    pytest.importorskip("onnxruntime")
    has_run(trained)
    reader.read(PROJECT / "docs" / "deploy.md")
    assert Path("classes.csv").is_file() and Path("model.onnx").is_file()
    for language, text in blocks(PROJECT / "README.md"):
        if language == "python" and not shown_file(text):
            reader.execute(text)


# links


def links(page: Path) -> Iterator[str]:
    """What a page links to or shows, outside of code."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {reference.slug(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_and_picture_is_there(page):
    for link in links(page):
        if not link.startswith(("http://", "https://")):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index():
    linked = set(links(PROJECT / "docs" / "README.md"))
    assert {page.name for page in (PROJECT / "docs").glob("*.md")} - {"README.md"} <= linked


# the reference


def test_the_reference_is_what_the_code_gives():
    assert reference.PAGE.read_text() == reference.page(), "run python -m tests.reference"


def test_every_setting_has_a_meaning():
    rows = [row for row in reference.page().splitlines() if row.startswith("| `")]
    assert len(rows) > 100 and [row for row in rows if reference.NO_MEANING in row] == []
