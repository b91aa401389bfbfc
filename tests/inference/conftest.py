"""A run that has been evaluated, and its model."""

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar10.inference.loading import Model, load
from tests.conftest import TINY_BACKBONE
from tests.killing import train


@pytest.fixture(scope="session")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished CNN with a temperature; a test that changes something in it copies it first."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(trained, folder / "run")
    assert train(folder, "run=run", script="evaluate.py") == 0, (folder / "output.txt").read_text()
    return folder / "run"


@pytest.fixture(scope="session")
def fine_tuned(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a tiny backbone."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    arguments = ["data=shapes", f"data.root={shapes_root}", "data.batch_size=80", "trainer.max_epochs=1"]
    small = ["model=efficientnet_b0", f"model.backbone={TINY_BACKBONE}", "model.pretrained=false", "data.image_size=40"]
    assert train(folder, *arguments, *small, "hydra.run.dir=run") == 0, (folder / "output.txt").read_text()
    return folder / "run"


@pytest.fixture(scope="session")
def model(evaluated: Path) -> Model:
    return load(evaluated, device="cpu")


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A PNG of 50 x 40 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := BytesIO(), "PNG")
    return file.getvalue()
