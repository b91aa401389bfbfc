"""data.val_size=0: a run that learns from all images, whose last epoch is its result."""

import json
import shutil

import pytest
import torch

from cifar10.inference.loading import load
from tests.conftest import TINY_BACKBONE
from tests.killing import differences, outcome, train

ALL = ["data.val_size=0", "callbacks.early_stopping=null"]
B0 = ["model=efficientnet_b0", f"model.backbone={TINY_BACKBONE}", "model.pretrained=false", "data.image_size=32"]


@pytest.fixture
def whole(command, tiny, tmp_path):
    """Trains on all images, and returns the run's folder."""

    def whole_run(*overrides, folder="run"):
        needed = ALL[:1] if "model=efficientnet_b0" in overrides else ALL
        assert command("train.py", *tiny, *needed, f"hydra.run.dir={folder}", *overrides) == 0, command.err
        return tmp_path / folder

    return whole_run


def weights(file):
    return torch.load(file, weights_only=True)["state_dict"]


def test_all_images_are_trained_on_and_the_last_epoch_is_kept(whole, command):
    run = whole("trainer.max_epochs=3")
    summary = json.loads((run / "run.json").read_text())
    assert (summary["train_images"], summary["val_images"]) == (200, 0)
    assert not [key for key in summary if key.startswith("val/")]
    best, last = (weights(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert all(torch.equal(best[key], last[key]) for key in best)
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 2
    assert "200 images to train on, none to validate on" in command.out
    assert "none, as data.val_size=0 left no images for it" in command.out


def test_a_resumed_run_ends_in_the_same_bits(whole, command):
    straight, halved = whole("trainer.max_epochs=2"), whole("trainer.max_epochs=1", folder="halved")
    assert command("train.py", f"resume={halved}", "trainer.max_epochs=2") == 0, command.err
    one, other = (weights(run / "checkpoints" / "best.ckpt") for run in (straight, halved))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_average_is_what_is_kept(whole):
    plain, averaged = whole("model.lr=0.01"), whole("model.lr=0.01", "average=ema", folder="averaged")
    checkpoint = torch.load(averaged / "checkpoints" / "best.ckpt", weights_only=True)
    goes_on_with = weights(plain / "checkpoints" / "best.ckpt")
    assert any(not torch.equal(checkpoint["state_dict"][key], value) for key, value in goes_on_with.items())


def test_two_phases_and_cached_features_need_no_validation(whole):
    run = whole(
        *B0, "trainer.max_epochs=2", "callbacks.two_phase.head_epochs=1", "callbacks.two_phase.patience=null",
        "callbacks.two_phase.unfreeze_fraction=0.5", "callbacks.feature_caching.views=2",
    )  # fmt: skip
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_it_is_evaluated_predicted_with_and_exported_without_a_temperature(whole, command):
    run = whole()
    assert command("evaluate.py", f"run={run}") == 0, command.err
    assert not (run / "evaluation" / "calibration.json").exists()
    report = (run / "evaluation" / "report.md").read_text()
    assert "no validation images to fit it on" in report
    results = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert results["groups"][0]["runs"][0]["temperature"] == 1
    assert command("evaluate.py", f"run={run}") == 0
    assert "using the stored predictions" in command.out
    model = load(run)
    assert model.predictor.temperature == 1
    assert model.calibration == "not calibrated, as no image was kept from training to fit a temperature on"


@pytest.mark.parametrize("settings", [["check_images=20"], ["format=safetensors"]])
def test_it_is_exported_and_checked_on_training_images(whole, command, settings):
    assert command("cifar10/__main__.py", "export", f"run={whole()}", *settings) == 0, command.err
    assert "random pictures" not in command.out


def test_eight_bits_are_refused_in_a_line(whole, command):
    assert command("cifar10/__main__.py", "export", f"run={whole()}", "quantize=int8") == 1
    assert "trained without any (data.val_size=0)" in command.err and len(command.err.splitlines()) == 1, command.err


@pytest.mark.promise("kills")
@pytest.mark.parametrize("kill", ["before a step #24", "as an epoch begins #3"])
def test_a_run_killed_with_an_average_and_cached_features_ends_in_the_same_bits(shapes_root, tmp_path, kill):
    phases = ["callbacks.two_phase.head_epochs=1", "callbacks.two_phase.patience=null", "model.lr=0.03",
              "callbacks.two_phase.unfreeze_fraction=0.5", "callbacks.feature_caching.views=2", "average=ema",
              "trainer.checkpoint_every_n_steps=3", "trainer.max_epochs=4"]  # fmt: skip
    small = ["data=shapes", f"data.root={shapes_root}", "data.batch_size=20", "data.val_size=0"]
    for name, moment in (("whole", None), ("killed", kill)):
        (tmp_path / name).mkdir()
        assert train(tmp_path / name, *B0, *small, *phases, "hydra.run.dir=run", kill=moment) in (0, -9)
    assert train(tmp_path / "killed", "resume=run") == 0, (tmp_path / "killed" / "output.txt").read_text()
    assert differences(*(outcome(tmp_path / name / "run") for name in ("whole", "killed"))) == []


def test_it_compares_with_a_run_that_has_validated(whole, command, trained, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    assert command("evaluate.py", f"runs=[{whole()},{other}]") == 0, command.err


def test_a_sweep_of_seeds_ends_in_its_table(command, tiny, tmp_path):
    assert command("train.py", "-m", *tiny, *ALL, "seed=0,1") == 0, command.err
    [sweep] = tmp_path.glob("outputs/sweeps/*")
    assert "sweep of 2 jobs, without validation images" in command.out
    assert "trained without validation images" in (sweep / "sweep.html").read_text()
    assert "val" not in (sweep / "summary.csv").read_text().splitlines()[1]
    assert command("train.py", f"resume={sweep}") == 0, command.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.val_size=0"], "data.val_size=0 leaves no images to validate on; set callbacks.early_stopping=null"),
        (["data.val_size=0", *B0], "set callbacks.two_phase.patience=null"),
        (["data.val_size=-1"], "val_size=-1: must be 1 to"),
    ],
)
def test_what_needs_validation_images_is_refused_in_a_line(command, tiny, overrides, message):
    assert command("train.py", *tiny, *overrides) != 0
    assert message in command.err and len(command.err.splitlines()) == 1, command.err
