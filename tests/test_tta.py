"""Test-time augmentation: its figures stand beside the plain ones, and never in their place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar10.inference.loading import load
from cifar10.models.views import mean_logits, mirrored_and_shifted, shift
from cifar10.run_folder import RunFolder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def metrics(run):
    return json.loads((RunFolder(run).evaluation() / "metrics.json").read_text())


def test_a_shifted_view_is_a_crop_of_the_image_padded_by_reflection():
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect").to(torch.uint8)
    assert torch.equal(shift(images, 1), padded[..., :5, :7]) and torch.equal(shift(images, -1), padded[..., 2:, 2:])
    views = list(mirrored_and_shifted(images))
    assert len(views) == 6 and torch.equal(views[0], images) and torch.equal(views[1], images.flip(-1))
    assert torch.equal(shift(images[..., :1, :1], 1), images[..., :1, :1])


def test_the_average_does_not_change_if_the_picture_is_mirrored(trained):
    predictor, images = load(trained).predictor, torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = (predictor.logits(images) + predictor.logits(images.flip(-1))) / 2
        torch.testing.assert_close(mean_logits(predictor, images, "flip"), expected)
        torch.testing.assert_close(mean_logits(predictor, images.flip(-1), "flip"), expected)


@pytest.mark.parametrize(("views", "count", "checkpoint"), [("flip", 2, "best"), ("flip_shift", 6, "last")])
def test_both_figures_are_reported_and_the_plain_ones_stay_what_they_were(command, run, views, count, checkpoint):
    evaluate = [f"run={run}", "accelerator=cpu", f"checkpoint={checkpoint}"]
    assert command("evaluate.py", *evaluate) == 0, command.err
    plain, calibration = metrics(run), RunFolder(run).calibration.read_text()
    assert plain["tta"] == {"acc": None, "loss": None} and "test-time" not in command.out
    assert command("evaluate.py", *evaluate, f"tta={views}") == 0, command.err
    found = metrics(run)
    assert found["tta"].pop("views") == f"{views}: {count} views of each image"
    with np.load(RunFolder(run).evaluation() / f"tta_{views}.npz") as stored:
        logits, labels = stored["logits"], np.load(RunFolder(run).evaluation() / "predictions.npz")["labels"]
    assert found["tta"]["acc"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert found["tta"]["loss"] == pytest.approx(F.cross_entropy(*map(torch.from_numpy, (logits, labels))).item())
    assert found["tta"]["loss"] != plain["loss"]
    for key in ("acc", "loss", "test/acc", "test/loss", "temperature", "confusion_matrix", "calibration"):
        assert found[key] == plain[key], key
    assert RunFolder(run).calibration.read_text() == calibration
    report = (RunFolder(run).evaluation() / "report.md").read_text()
    assert "| accuracy with test-time augmentation |" in report and f"{views}: {count} views" in report
    assert f"test accuracy {plain['acc']:.4f}" in command.out and f"with test-time augmentation ({views}" in command.out
    assert command("evaluate.py", *evaluate, f"tta={views}") == 0 and "views of each test image" not in command.out
    assert command("evaluate.py", *evaluate) == 0 and metrics(run) == plain


def test_damaged_views_are_predicted_again(command, run):
    assert command("evaluate.py", f"run={run}", "accelerator=cpu", "tta=flip") == 0, command.err
    before, file = metrics(run), RunFolder(run).evaluation() / "tta_flip.npz"
    file.write_bytes(file.read_bytes()[:-200])
    assert command("evaluate.py", f"run={run}", "accelerator=cpu", "tta=flip") == 0, command.err
    assert "not usable" in command.out and metrics(run) == before


@pytest.mark.promise("configurations")
@pytest.mark.parametrize(
    "settings", [["tta=mirror"], ["tta=2"], ["tta=flip", "+corruption=noise"], ["tta=flip", "data=cifar10c"]]
)
def test_views_that_do_not_exist_or_do_not_apply_are_refused_in_a_line(command, run, settings):
    assert command("evaluate.py", f"run={run}", *settings) == 1
    assert command.err.startswith("error: tta") and len(command.err.splitlines()) == 1
