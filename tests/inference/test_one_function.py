"""Evaluate, predict, export and serve see the same in a picture, whatever its format, mode, size and orientation."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from starlette.testclient import TestClient

from cifar10.data.pictures.decode import read_picture
from cifar10.inference.export.formats import FORMATS, metadata
from cifar10.inference.loading import Model, load
from cifar10.inference.serving.app import Server
from tests.pictures import ORIENTED, UPRIGHT, WRITTEN, encode, exif, is_written, quarters

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16")
SIZES = ((32, 32), (64, 32), (33, 71), (5, 4), (1, 1), (3, 200), (500, 375), (1, 90), (257, 256), (128, 40))
HOW_MANY = 200
CLOSE = 1e-5  # of a probability


def odd_pictures() -> dict[str, bytes]:
    """200 pictures by file name: every format with its modes and sizes, and every orientation where there are any."""
    found = {}
    sizes = itertools.cycle(SIZES)
    for file_format, mode in itertools.product(WRITTEN, MODES):
        size = (64, 32) if file_format == "ICO" else next(sizes)
        if is_written(mode, file_format):
            found[f"{file_format}_{mode.replace(';', '')}_{size}"] = encode(quarters(mode, size), file_format)
    for file_format, orientation in itertools.product(ORIENTED, UPRIGHT):
        picture = quarters(size=next(sizes))
        found[f"{file_format}_turned_{orientation}"] = encode(picture, file_format, exif=exif(orientation))
    rng, number = np.random.default_rng(0), 0
    while len(found) < HOW_MANY:  # noise of odd sizes, where rounding shows
        height, width = rng.integers(1, 400, 2)
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        file_format = ("PNG", "JPEG")[number % 2]
        found[f"noise_{number}_{file_format}"] = encode(noise, file_format)
        number += 1
    return dict(itertools.islice(found.items(), HOW_MANY)) if len(found) > HOW_MANY else found


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    """The pictures as a folder of classes, as evaluate.py takes one."""
    for number, (name, content) in enumerate(odd_pictures().items()):
        file = tmp_path / "odd" / model.class_names[number % len(model.class_names)] / f"{name}.img.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "odd"


@pytest.mark.promise("same answers")
def test_evaluate_predict_export_and_serve_agree_on_200_odd_pictures(
    command, evaluated, model, folder, record_property
):
    run = folder.parent / "run"
    shutil.copytree(evaluated, run)
    assert command("evaluate.py", f"run={run}", "data=folder", f"data_root={folder}") == 0, command.err
    with np.load(run / "evaluation_folder/predictions.npz") as stored:
        logits = dict(zip(stored["files"].tolist(), stored["logits"], strict=True))
    assert len(logits) == HOW_MANY

    assert command("cifar10/__main__.py", "predict", f"run={run}", f"images={folder}", "format=json", "top=10") == 0
    predicted = {row["file"]: row["predictions"] for row in json.loads(command.out)}
    onnx = FORMATS["onnx"].read(FORMATS["onnx"].write(model.predictor, metadata(model.predictor, "run")))
    client = TestClient(Server([load(run)], 10, 10**7).app(any_host=False), base_url="http://127.0.0.1")
    for name, row in logits.items():
        file = folder / name
        evaluated_as = softmax(row.astype(np.float64) / model.predictor.temperature)
        pixels = read_picture(file, at_least=model.square.size, background=model.square.background)
        answers = {
            "predict": in_order(model, predicted[str(file)]),
            "export": onnx(pixels[None].numpy())[0],
            "serve": in_order(
                model, client.post("/predict", content=file.read_bytes()).json()["runs"][0]["predictions"]
            ),
        }
        for way, found in answers.items():
            assert np.abs(found - evaluated_as).max() < CLOSE, (way, name)
            assert found.argmax() == evaluated_as.argmax(), (way, name)
        record_property("tried", name)


def in_order(model: Model, predictions: list[dict]) -> np.ndarray:
    probabilities = {one["class"]: one["probability"] for one in predictions}
    return np.array([probabilities[name] for name in model.class_names])
