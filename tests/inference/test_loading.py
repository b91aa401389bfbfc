"""`from cifar10 import load`: a finished run classifies whatever shows a picture, in a process without Hydra."""

import shutil
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cifar10 import load
from cifar10.data.pictures.decode import UnreadablePicture
from cifar10.errors import UserError
from cifar10.inference.finished_runs import open_run
from tests.conftest import PROJECT

HOSTILE = ["", "[]", "null", "{", '{"temperature": "1"}', "[" * 100_000,
           '{"temperature": 0, "val_images": 1, "checkpoint_sha256": "a"}',
           '{"temperature": NaN, "val_images": 1, "checkpoint_sha256": "a"}',
           '{"temperature": 1e9, "val_images": 1, "checkpoint_sha256": "a"}']  # fmt: skip


@pytest.mark.promise("same answers")
def test_a_file_its_bytes_an_image_an_array_and_a_tensor_are_the_same_picture(model, photo, tmp_path):
    (file := tmp_path / "photo.png").write_bytes(photo)
    image = Image.open(BytesIO(photo))
    array = np.asarray(image)
    forms = [str(file), file, image, array, torch.from_numpy(array.copy()).permute(2, 0, 1)]
    expected = model.predict(file)[0].probabilities
    for form in forms:
        [found] = model.predict(form)
        np.testing.assert_array_equal(found.probabilities, expected)
    assert len(model.predict(forms, batch_size=2)) == len(forms)
    assert len(model.predict(np.stack([array] * 3))) == 3
    assert model.predict([]) == []


def test_a_prediction_names_its_classes_from_the_most_probable_one(model, photo):
    prediction = model.predict(Image.open(BytesIO(photo)))[0]
    assert prediction.class_names == model.class_names and prediction.probabilities.shape == (len(model.class_names),)
    names, probabilities = zip(*prediction.top(len(model.class_names)), strict=True)
    assert sorted(names) == sorted(model.class_names) and list(probabilities) == sorted(probabilities, reverse=True)
    assert (prediction.class_name, prediction.probability) == prediction.top(1)[0]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_any_mode_are_read_as_their_files_are_and_stay_as_they_are(model, mode, tmp_path):
    image = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)).convert("L" if mode == "I;16" else mode)
    if mode == "F":
        image = image.point(lambda value: value / 255)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    before = image.copy()
    [found] = model.predict(image)
    image.save(tmp_path / "x.tiff")
    np.testing.assert_array_equal(found.probabilities, model.predict(tmp_path / "x.tiff")[0].probabilities)
    assert image == before


def test_an_image_that_lies_on_its_side_is_turned_and_stays_as_it_is(model, photo):
    upright = Image.open(BytesIO(photo))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    np.testing.assert_array_equal(model.predict(turned)[0].probabilities, model.predict(upright)[0].probabilities)
    assert turned.size == upright.size[::-1] and ImageOps.exif_transpose(turned).size == upright.size


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize("picture", [
    np.zeros((8, 8, 3), np.float32), np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 2), np.uint8),
    np.zeros((0, 8, 3), np.uint8), torch.zeros(8, 8, 3, dtype=torch.uint8), torch.zeros(3, 8, 8),
    torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(3, 0, 8, dtype=torch.uint8), 3, None,
], ids=lambda picture: f"{type(picture).__name__} {getattr(picture, 'dtype', picture)}")  # fmt: skip
def test_what_is_no_picture_is_refused_with_what_would_be_one(model, picture):
    with pytest.raises(ValueError, match=r"must be uint8|pass a file"):
        model.predict([picture])


def test_a_file_that_is_no_picture_raises_the_reason(model, tmp_path):
    (tmp_path / "x.jpg").write_text("nonsense")
    with pytest.raises(UnreadablePicture, match=r"x\.jpg: not a picture"):
        model.predict([tmp_path / "x.jpg"])
    with pytest.raises(UnreadablePicture, match=r"none\.jpg: No such file"):
        model.predict("none.jpg")


@pytest.mark.parametrize(
    "images", [torch.rand(2, 3, 8, 8), torch.zeros(3, 8, 8).byte(), torch.zeros(1, 4, 8, 8).byte()]
)
def test_the_module_takes_uint8_batches_alone(model, images):
    with pytest.raises(ValueError, match="must be uint8"):
        model.predictor(images)


@pytest.mark.promise("same answers")
@pytest.mark.parametrize("kind", ["evaluated", "fine_tuned"])
def test_the_plain_network_gives_what_the_lightning_module_gives(request, kind):
    from cifar10.models.efficientnet import EfficientNet
    from cifar10.models.scratch import ScratchClassifier

    folder = request.getfixturevalue(kind)
    target = {"evaluated": ScratchClassifier, "fine_tuned": EfficientNet}[kind]
    module = target.load_from_checkpoint(folder / "checkpoints/best.ckpt", map_location="cpu", weights_only=True).eval()
    predictor = open_run(folder).load_predictor("best")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(predictor.logits(images), module(images))


def test_predicting_needs_neither_hydra_nor_lightning(evaluated, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    code = f"""
import sys
from cifar10 import load
load({str(evaluated)!r}).predict("photo.png")
from hydra.core.global_hydra import GlobalHydra
assert not GlobalHydra.instance().is_initialized()
assert not {{"pytorch_lightning", "torchmetrics", "timm", "torchvision"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(PROJECT)}, check=True)


def test_the_temperature_is_that_of_these_weights(evaluated, photo, tmp_path):
    shutil.copytree(evaluated, run := tmp_path / "run")
    calibrated = load(run)
    assert calibrated.predictor.temperature != 1 and calibrated.calibration.startswith("calibrated: temperature")
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    torch.save(content | {"other": "bytes"}, run / "checkpoints/best.ckpt")
    other = load(run)
    assert other.predictor.temperature == 1 and "python evaluate.py run=" in other.calibration
    scaled = np.log(calibrated.predict(Image.open(BytesIO(photo)))[0].probabilities) * calibrated.predictor.temperature
    plain = np.exp(scaled) / np.exp(scaled).sum()
    np.testing.assert_allclose(other.predict(Image.open(BytesIO(photo)))[0].probabilities, plain, atol=1e-5)


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: content[:60])
def test_a_damaged_temperature_is_one_line(evaluated, tmp_path, content):
    shutil.copytree(evaluated, tmp_path / "run")
    (tmp_path / "run/evaluation/calibration.json").write_text(content)
    with pytest.raises(UserError, match=r"calibration\.json cannot be read .*run evaluate\.py again"):
        load(tmp_path / "run")


def test_a_run_of_an_earlier_version_takes_pictures_as_it_was_trained(evaluated, photo, tmp_path):
    """Checkpoints used to say nothing of other sizes, and the CNN's arguments were the model's."""
    shutil.copytree(evaluated, run := tmp_path / "run")
    expected = load(run).predict(Image.open(BytesIO(photo)))[0].probabilities
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    del content["preprocessing"]
    network = content["hyper_parameters"].pop("network")
    content["hyper_parameters"] |= {key: value for key, value in network.items() if key != "_target_"}
    torch.save(content, run / "checkpoints/best.ckpt")
    old = load(run)
    old.predictor.temperature = load(evaluated).predictor.temperature
    np.testing.assert_allclose(old.predict(Image.open(BytesIO(photo)))[0].probabilities, expected, atol=1e-6)


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(("options", "words"), [
    ({"run": "nowhere"}, "not a run's folder"), ({"checkpoint": "first"}, "does not exist"),
    ({"device": "tpu"}, "must be one of auto"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_one_line(evaluated, options, words):
    with pytest.raises(UserError, match=words):
        load(**{"run": evaluated} | options)
