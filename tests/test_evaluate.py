"""evaluate.py from the command line: what it writes, and how it answers mistakes."""

import json
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from cifar10.data.sources import Shapes


@pytest.fixture
def run(command, tiny, tmp_path):
    assert command("train.py", *tiny, "hydra.run.dir=outputs/cnn/run") == 0
    return tmp_path / "outputs" / "cnn" / "run"


def test_an_evaluation_writes_results_for_people_and_for_machines(command, run, shapes_root):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    folder = run / "evaluation"
    results = json.loads((folder / "metrics.json").read_text())
    saved = np.load(folder / "predictions.npz")
    _, labels = Shapes(shapes_root).load("test")
    assert np.array_equal(saved["labels"], labels.numpy()), "in the source's order"
    assert saved["logits"].shape == (40, 10) and saved["logits"].dtype == np.float32
    assert results["test/acc"] == pytest.approx((saved["logits"].argmax(1) == saved["labels"]).mean())
    assert np.array(results["confusion_matrix"]).sum() == results["n"] == 40
    assert [row["class"] for row in results["per_class"]] == list(Shapes.class_names)
    assert results["synthetic"] is True and "not CIFAR-10" in results["data"]
    for name in ("confusion_matrix.png", "learning_curves.png"):
        assert min(Image.open(folder / name).size) > 300
    assert f"test accuracy {results['test/acc']:.4f}" in command.out and "evaluation" in command.out


def test_without_a_name_the_newest_run_is_evaluated(command, run):
    assert command("evaluate.py") == 0
    assert (run / "evaluation" / "metrics.json").is_file()


def test_evaluating_twice_gives_the_same_logits(command, run):
    logits = []
    for _ in range(2):
        assert command("evaluate.py", "run=outputs/cnn/run") == 0
        logits.append(np.load(run / "evaluation" / "predictions.npz")["logits"])
    assert np.array_equal(*logits)


def test_the_data_may_have_moved(command, run, shapes_root, tmp_path):
    shutil.copytree(shapes_root, tmp_path / "moved")
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.data.root = str(tmp_path / "gone" / "without" / "leave")
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    assert command("evaluate.py", "run=outputs/cnn/run", f"data_root={tmp_path / 'moved'}") == 0
    assert not (tmp_path / "gone").exists()


def refuse(command, *arguments):
    assert command("evaluate.py", *arguments) == 1
    assert command.err.startswith("error: ") and len(command.err.splitlines()) == 1, command.err
    return command.err


def test_a_folder_that_is_no_run_is_refused(command, tmp_path):
    assert "run=nowhere" in refuse(command, "run=nowhere")
    assert list(tmp_path.iterdir()) == []


def test_no_run_at_all_says_how_to_make_one(command):
    assert "python train.py" in refuse(command)


def test_a_missing_checkpoint_names_those_that_are_there(command, run):
    assert "best, last" in refuse(command, "run=outputs/cnn/run", "checkpoint=epoch7")
    assert not (run / "evaluation").exists()


def test_a_checkpoint_of_another_kind_is_refused(command, run):
    torch.save({"state_dict": {}}, run / "checkpoints" / "best.ckpt")
    assert "best.ckpt" in refuse(command, "run=outputs/cnn/run")
    (run / "checkpoints" / "best.ckpt").write_bytes(b"half a checkpo")
    assert "best.ckpt" in refuse(command, "run=outputs/cnn/run")


def test_a_configuration_that_names_a_foreign_class_builds_nothing(command, run, tmp_path):
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.model._target_ = "pathlib.Path.touch"
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    assert "pathlib.Path.touch" in refuse(command, "run=outputs/cnn/run")


def test_a_misspelt_setting_is_refused(command):
    assert "did you mean run" in refuse(command, "rum=outputs/cnn/run")
