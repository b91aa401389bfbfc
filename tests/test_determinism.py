"""`trainer.deterministic=true`: the same command twice ends in the same bits."""

import csv

import numpy as np
import pytest
import torch

B0 = ["model=efficientnet_b0", "model.backbone=test_efficientnet", "model.pretrained=false", "data.image_size=32",
      "model.dropout=0.3", "model.drop_path=0.2", "callbacks.two_phase.head_epochs=1",
      "callbacks.two_phase.unfreeze_fraction=0.6"]  # fmt: skip
DRAWN_ANEW = ["data.mixup_alpha=0.4", "data.cutmix_alpha=1", "data.cutout=8"]
CASES = {
    "CNN": [],
    "CNN, mixup, cutmix, cutout, crops": [*DRAWN_ANEW, "data.flip=true", "data.crop_padding=4"],
    "two phases": B0,
    "two phases, mixup, cutmix, cutout": [*B0, *DRAWN_ANEW],
    "two phases, 2 cached views": [*B0, "callbacks.feature_caching.views=2"],
    "two phases, 3 cached views, sgd": [*B0, "callbacks.feature_caching.views=3", "model.optimizer=sgd"],
    "two phases, bf16-mixed": [*B0, "trainer.precision=bf16-mixed"],
}


@pytest.fixture(autouse=True)
def settings_of_torch():
    yield
    torch.use_deterministic_algorithms(False)


def outcome(command, folder, *arguments):
    assert command("train.py", *arguments, "trainer.deterministic=true", f"hydra.run.dir={folder}") == 0, command.err
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    with (folder / "metrics.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return weights, rows


@pytest.mark.promise("same answers")
@pytest.mark.parametrize("case", CASES)
def test_the_same_command_twice_ends_in_the_same_bits(command, tiny, tmp_path, case):
    arguments = [*tiny, "data.batch_size=37", "trainer.max_epochs=2", *CASES[case]]
    (weights, rows), (again, rows_again) = (outcome(command, tmp_path / name, *arguments) for name in ("one", "two"))
    assert weights.keys() == again.keys() and rows == rows_again
    assert not [key for key in weights if not torch.equal(weights[key], again[key])]
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.promise("same answers")
def test_two_such_runs_make_the_same_predictions(command, tiny, tmp_path):
    predictions = []
    for name in ("one", "two"):
        outcome(command, tmp_path / name, *tiny)
        assert command("evaluate.py", f"run={tmp_path / name}") == 0, command.err
        with np.load(tmp_path / name / "evaluation" / "predictions.npz") as file:
            predictions.append({key: file[key] for key in ("logits", "labels", "val_logits", "val_labels")})
    for key, values in predictions[0].items():
        assert np.array_equal(values, predictions[1][key]), key


@pytest.mark.promise("configurations")
@pytest.mark.parametrize("model", ["CNN", "two phases", "two phases, 2 cached views"])
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_every_precision_of_a_cpu_trains(command, tiny, model, precision):
    assert command("train.py", *tiny, "trainer.max_epochs=2", *CASES[model], f"trainer.precision={precision}") == 0
