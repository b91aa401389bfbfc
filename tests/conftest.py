"""Shared by all tests: a small drawn data set, a finished run, and the two commands in this process."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch reads it: each worker has a core, and the bits are those of -n 0
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"  # an active environment

import logging
import runpy
import signal
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

from cifar10.commandline.command import PLUGINS
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.sources.shapes import write_cifar10_files

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # which a shell has ignored by what it starts in the background
sys.path.append(PLUGINS)  # before a test composes: Hydra looks for plugins once in a process
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")

pytest_plugins = ["tests.promises", "tests.pairs"]

PROJECT = Path(__file__).parent.parent
TINY_BACKBONE = "test_efficientnet.r160_in1k"  # timm's own, for tests


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root for `data=shapes` with 5 x 40 training and 40 test images."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "shapes" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    write_cifar10_files(folder, images_per_batch=40)
    return root


@pytest.fixture(scope="session", autouse=True)
def decoded_pictures_go_to_a_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["CIFAR10_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def datamodule(shapes_root: Path) -> CIFAR10DataModule:
    return CIFAR10DataModule(root=str(shapes_root), source="shapes", batch_size=32, flip=True, crop_padding=4)


class Command:
    """Runs train.py or evaluate.py in this process, in its own folder."""

    def __init__(self, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch
        self.out = self.err = ""

    def __call__(self, script: str, *arguments: str) -> int:
        """The exit code; what was printed is in `out` and `err`."""
        GlobalHydra.instance().clear()
        self.monkeypatch.setattr(sys, "argv", [script, *arguments])
        self.capsys.readouterr()
        try:
            runpy.run_path(str(PROJECT / script), run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def command(capsys, monkeypatch, tmp_path) -> Command:
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    for name in ("HYDRA_FULL_ERROR", "CIFAR10_WEIGHTS"):
        os.environ.pop(name, None)
    yield Command(capsys, monkeypatch)
    os.environ.clear()
    os.environ.update(environment)
    for handler in list(logging.root.handlers):  # Hydra's, whose streams are closed by now
        if type(handler) in (logging.StreamHandler, logging.FileHandler):
            logging.root.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session")
def trained(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the drawn images; a test that changes something in it copies it first."""
    from tests.killing import train

    folder = tmp_path_factory.mktemp("trained")
    arguments = ["data=shapes", f"data.root={shapes_root}", "data.batch_size=80", "trainer.max_epochs=1"]
    assert train(folder, *arguments, "hydra.run.dir=run") == 0, (folder / "output.txt").read_text()
    return folder / "run"


@pytest.fixture
def tiny(shapes_root: Path) -> list[str]:
    """Overrides that make any run small: drawn images, two steps per epoch."""
    return [
        "data=shapes",
        f"data.root={shapes_root}",
        "data.batch_size=80",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
    ]
