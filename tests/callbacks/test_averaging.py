"""The average of a run's weights is what is validated, kept and evaluated, in every way to train."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from cifar10.callbacks.averaging import EMA, SWA
from cifar10.callbacks.checkpoint import Checkpoint
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.inference.loading import load
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.scratch import ScratchClassifier
from cifar10.run_folder import RunFolder
from tests.conftest import TINY_BACKBONE
from tests.killing import differences, outcome, train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EMA_OF_THREE = ["average=ema", "callbacks.ema.decay=0.67"]
LAST_HALF = ["average=swa", "callbacks.swa.start=0.5"]
B0 = ["model=efficientnet_b0", f"model.backbone={TINY_BACKBONE}", "model.pretrained=false", "data.image_size=32",
      "callbacks.two_phase.head_epochs=1", "callbacks.two_phase.unfreeze_fraction=0.5", "callbacks.two_phase.lr=0.03",
      "model.lr=0.03"]  # fmt: skip
CACHED = [*B0, "callbacks.feature_caching.views=2"]
CASES = {
    "CNN, EMA": EMA_OF_THREE,
    "two phases from cached features, SWA": [*CACHED, *LAST_HALF],
}  # others: test_pairs.py


class Watch(pl.Callback):
    """The weights after every step, and those that validation sees."""

    def __init__(self):
        self.steps, self.seen, self.losses = [], [], []

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        self.steps.append(copy(pl_module))

    def on_validation_start(self, trainer, pl_module):
        self.before = copy(pl_module)

    def on_validation_batch_start(self, trainer, pl_module, *arguments):
        self.seen.append(copy(pl_module))

    def on_validation_end(self, trainer, pl_module):
        assert same(copy(pl_module), self.before), "training goes on with its own weights"
        self.losses.append(float(trainer.callback_metrics["val/loss"]))


def copy(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def fit(model, data, tmp_path, *callbacks, **options):
    """Train for three epochs of four steps; what was seen, and the checkpoint's folder."""
    watch, keeper = Watch(), Checkpoint(str(tmp_path / "kept"))
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    options = {"max_epochs": 3, "num_sanity_val_steps": 0, **quiet} | options
    trainer = pl.Trainer(**options, default_root_dir=tmp_path, callbacks=[watch, *callbacks, keeper])
    trainer.fit(model, data)
    return watch, keeper


@pytest.fixture
def data(shapes_root):
    return CIFAR10DataModule(str(shapes_root), "shapes", batch_size=40)


def cnn(data):
    pl.seed_everything(0)
    return ScratchClassifier(list(data.class_names), lr=1e-2, optimizer="sgd")


def b0(data):
    pl.seed_everything(0)
    return EfficientNet(list(data.class_names), TINY_BACKBONE, pretrained=False, image_size=32, lr=0.03)


@pytest.mark.parametrize("case", CASES)
def test_what_is_validated_is_what_is_kept_evaluated_and_used(command, tiny, case):
    settings = [*tiny, "trainer.max_epochs=4", "data.batch_size=40", *CASES[case]]
    assert command("train.py", *settings, "hydra.run.dir=run") == 0, command.err
    run = RunFolder("run")
    checkpoint = torch.load(run.best, weights_only=True)
    logged = next(row for row in run.read_metrics() if row["epoch"] == checkpoint["epoch"])
    last = torch.load(run.last, weights_only=True)
    assert not same(last["current_model_state"], last["state_dict"])
    summary = run.read_summary()
    assert summary["val/acc"] == pytest.approx(logged["val/acc"], abs=1e-6)
    assert summary["val/loss"] == pytest.approx(logged["val/loss"], abs=2e-3 if "cached" in case else 1e-5)
    assert command("evaluate.py", "run=run", "accelerator=cpu") == 0, command.err
    with np.load("run/evaluation/predictions.npz") as stored:
        found = float((stored["val_logits"].argmax(1) == stored["val_labels"]).mean())
    assert found == pytest.approx(logged["val/acc"], abs=1e-6)
    assert json.loads((run.evaluation() / "metrics.json").read_text())["checkpoint"] == "best"
    in_use = load("run").predictor.network.state_dict()
    assert all(torch.equal(value, checkpoint["state_dict"][key]) for key, value in in_use.items())


@pytest.mark.promise("same answers")
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_in_mid_epoch_ends_in_the_bits_of_one_that_was_not(shapes_root, tmp_path, case):
    often = ["trainer.checkpoint_every_n_steps=3", "trainer.max_epochs=4", "hydra.run.dir=run"]
    run = ["data=shapes", f"data.root={shapes_root}", "data.batch_size=20", *CASES[case], *often]
    for name, kill in (("whole", None), ("killed", "before a step #24")):
        (tmp_path / name).mkdir()
        assert train(tmp_path / name, *run, kill=kill) in (0, -9)
    assert train(tmp_path / "killed", "resume=run") == 0, (tmp_path / "killed" / "output.txt").read_text()
    assert "2 epochs and 5 batches of the next done, 21 steps" in (tmp_path / "killed" / "output.txt").read_text()
    assert differences(outcome(tmp_path / "whole" / "run"), outcome(tmp_path / "killed" / "run")) == []


def test_the_moving_average_is_the_formula_s(data, tmp_path):
    watch, keeper = fit(cnn(data), data, tmp_path, EMA(decay=0.7, update_every_n_steps=2, update_starting_at_step=3))
    for step, weights in enumerate(watch.steps):
        if step <= 3:
            average = weights
        elif step % 2 == 1:
            average = {key: 0.7 * average[key] + 0.3 * value for key, value in weights.items()}
    kept = torch.load(keeper.last, weights_only=True)
    for key, value in kept["state_dict"].items():
        torch.testing.assert_close(value, average[key])
    assert same(kept["current_model_state"], watch.steps[-1])


def test_stochastic_weight_averaging_is_the_mean_of_the_last_epochs(data, tmp_path):
    watch, keeper = fit(cnn(data), data, tmp_path, SWA(start=1 / 3))
    kept = torch.load(keeper.last, weights_only=True)["state_dict"]
    for key, value in kept.items():
        torch.testing.assert_close(value, (watch.steps[7][key] + watch.steps[11][key]) / 2)


@pytest.mark.parametrize("average", [EMA(update_starting_at_step=6), SWA(start=1 / 3)])
def test_until_the_average_begins_it_is_the_weights_themselves(data, tmp_path, average):
    watch, _ = fit(cnn(data), data, tmp_path, average, val_check_interval=2)
    assert all(same(seen, watch.steps[2 * number + 1]) for number, seen in enumerate(watch.seen[:3]))
    assert not same(watch.seen[-1], watch.steps[-1])


@pytest.mark.parametrize("average", [EMA(decay=0.9), SWA(start=0.0)])
def test_what_is_frozen_stays_as_it_is_to_the_last_bit(data, tmp_path, average):
    model = b0(data)
    before = copy(model)
    phases = TwoPhaseFineTuning(head_epochs=1, unfreeze_fraction=0.5, lr=0.03)
    watch, keeper = fit(model, data, tmp_path, phases, average)
    first = phases.first_learning_block(model)
    frozen = {id(parameter) for block in model.backbone_blocks()[:first] for parameter in block}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in frozen}
    layers = {name.rpartition(".")[0] for name in names}
    kept = torch.load(keeper.last, weights_only=True)["state_dict"]
    untouched = [key for key in kept if key.rpartition(".")[0] in layers]
    assert any("running_mean" in key for key in untouched)
    assert all(torch.equal(kept[key], before[key]) for key in untouched)
    moved = [key for key in kept if key not in untouched and kept[key].is_floating_point()]
    assert not any(torch.equal(kept[key], watch.steps[-1][key]) for key in moved if "weight" in key)


def test_phase_2_begins_with_the_head_that_was_validated_and_an_average_of_its_own(data, tmp_path):
    phases = TwoPhaseFineTuning(head_epochs=2, unfreeze_fraction=0.5, lr=1e-9)
    watch, keeper = fit(b0(data), data, tmp_path, phases, EMA(decay=0.9))
    best = watch.losses.index(min(watch.losses[:2]))
    kept = torch.load(keeper.last, weights_only=True)
    for key in ("head.1.weight", "head.1.bias"):
        for weights in (watch.steps[8], kept["current_model_state"], kept["state_dict"]):
            torch.testing.assert_close(weights[key], watch.seen[best][key], rtol=1e-4, atol=1e-6)
        assert (watch.seen[best][key] - watch.steps[4 * best + 3][key]).abs().max() > 1e-4


def test_counts_of_batches_and_statistics_of_batch_normalisation_are_kept(data, tmp_path):
    model = b0(data)
    watch, keeper = fit(model, data, tmp_path, EMA(decay=0.9))
    kept = torch.load(keeper.last, weights_only=True)["state_dict"]
    counts = [key for key in kept if key.endswith("num_batches_tracked")]
    assert counts and all(kept[key].dtype == torch.int64 and kept[key] == 12 for key in counts)
    means = [key for key in kept if key.endswith("running_mean")]
    assert not any(torch.equal(kept[key], watch.steps[-1][key]) for key in means)


def test_an_average_has_the_precision_of_training(data, tmp_path):
    watch, keeper = fit(cnn(data), data, tmp_path, EMA(decay=0.9), precision="64-true")
    kept = torch.load(keeper.last, weights_only=True)
    assert all(value.dtype == torch.float64 for value in kept["state_dict"].values())
    assert same(kept["current_model_state"], watch.steps[-1])


def test_a_model_has_the_average_when_training_has_ended(data, tmp_path):
    model = cnn(data)
    _, keeper = fit(model, data, tmp_path, EMA(decay=0.9))
    assert same(copy(model), torch.load(keeper.last, weights_only=True)["state_dict"])


@pytest.mark.parametrize("average", [EMA(decay=0.9), SWA(start=0.0)])
def test_without_validation_best_is_the_last_average_and_the_model_has_it(shapes_root, tmp_path, average):
    data = CIFAR10DataModule(str(shapes_root), "shapes", batch_size=50, val_size=0)
    model = cnn(data)
    watch, keeper = fit(model, data, tmp_path, average, check_val_every_n_epoch=2)
    best = torch.load(keeper.best, weights_only=True)
    assert not watch.seen and best["epoch"] == 2 and keeper.best_model_path == str(keeper.best)
    assert same(copy(model), best["state_dict"]) and not same(best["state_dict"], best["current_model_state"])
    assert same(best["current_model_state"], watch.steps[-1])


@pytest.mark.parametrize("average", [EMA_OF_THREE, LAST_HALF])
def test_a_pretrained_backbone_is_the_average_of_the_run_it_comes_from(command, tiny, average):
    assert command("train.py", *tiny, "trainer.max_epochs=2", *B0, *average, "hydra.run.dir=run") == 0, command.err
    best = RunFolder("run").best
    again = [*tiny, *B0, f"model.weights={best}", "callbacks.two_phase.unfreeze_fraction=0.1", "hydra.run.dir=second"]
    assert command("train.py", *again) == 0, command.err
    one, two = (torch.load(file, weights_only=True)["state_dict"] for file in (best, RunFolder("second").best))
    assert all(torch.equal(one[key], two[key]) for key in one if key.startswith("backbone."))


@pytest.mark.promise("configurations")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["average=ema", "callbacks.ema.decay=1"], "callbacks.ema.decay=1"),
        (["average=ema", "callbacks.ema.update_every_n_steps=0"], "callbacks.ema.update_every_n_steps=0"),
        (["average=ema", "callbacks.ema.update_starting_at_step=-1"], "callbacks.ema.update_starting_at_step=-1"),
        (["average=swa", "callbacks.swa.start=1"], "callbacks.swa.start=1"),
        (["average=ema", "trainer.precision=bf16-true"], "too coarse for an average of weights; use bf16-mixed"),
        (["average=median"], "average"),
    ],
)
def test_an_average_that_cannot_be_is_refused_in_a_line(command, tiny, settings, words):
    assert command("train.py", *tiny, *settings) != 0
    assert words in command.err and len(command.err.splitlines()) == 1, command.err
