"""A run's evaluation folder, without a run."""

import json

import numpy as np
import pytest

from cifar10.evaluation.metrics import classification_metrics
from cifar10.evaluation.report import read_epochs, write_evaluation

NAMES = ["cat", "dog", "ship"]
PROVENANCE = {"name": "cnn", "data": "three drawn classes", "synthetic": True}


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 3)), rng.integers(0, 3, 30)


def write(run, predictions):
    return write_evaluation(run, *predictions, classification_metrics(*predictions, NAMES), PROVENANCE)


def test_the_files_say_what_was_evaluated_and_how_well(tmp_path, predictions):
    folder = write(tmp_path, predictions)
    results = json.loads((folder / "metrics.json").read_text())
    assert results["data"] == "three drawn classes" and results["synthetic"] is True
    assert results["test/acc"] == pytest.approx((predictions[0].argmax(1) == predictions[1]).mean())
    assert "cnn on three drawn classes" in (folder / "per_class.txt").read_text()
    with np.load(folder / "predictions.npz") as saved:
        assert np.allclose(saved["logits"], predictions[0]) and np.array_equal(saved["labels"], predictions[1])
        assert saved["class_names"].tolist() == NAMES


def test_without_epochs_there_are_no_learning_curves(tmp_path, predictions):
    assert not (write(tmp_path, predictions) / "learning_curves.png").exists()


def test_with_epochs_there_are(tmp_path, predictions):
    (tmp_path / "metrics.csv").write_text("epoch,phase,val/loss,val/acc\n0,1.0,2.0,0.1\n1,2.0,1.0,\n")
    assert (write(tmp_path, predictions) / "learning_curves.png").exists()


def test_epochs_are_read_as_numbers_and_empty_cells_are_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,phase,val/acc\n0,1.0,0.25\n1,2.0,\n")
    assert read_epochs(tmp_path / "metrics.csv") == [
        {"epoch": 0, "phase": 1.0, "val/acc": 0.25},
        {"epoch": 1, "phase": 2.0},
    ]
