"""What a user of Lightning expects: its own calls, callbacks, loggers and arguments do here what they do elsewhere."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    StochasticWeightAveraging,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import CSVLogger, Logger

from cifar10.callbacks.checkpoint import Checkpoint
from cifar10.callbacks.timer import TrainingTimer
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.metric_names import mode_of
from cifar10.models.scratch import ScratchClassifier
from cifar10.run_folder import RunFolder
from tests.conftest import PROJECT

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}


@pytest.fixture
def data(shapes_root):
    return CIFAR10DataModule(str(shapes_root), "shapes", batch_size=40)


def model_for(data, **options):
    pl.seed_everything(0)
    return ScratchClassifier(list(data.class_names), **options)


def fit(model, data, tmp_path, *callbacks, **options):
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": keeps} | options
    trainer = pl.Trainer(**QUIET, **options, default_root_dir=tmp_path, callbacks=list(callbacks))
    trainer.fit(model, data)
    return trainer


class RatesUsed(pl.Callback):
    """The learning rate that each step was made with."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


class Remembers(Logger):
    """A logger of one's own."""

    name, version, log_hyperparams = "mine", "0", None

    def __init__(self):
        super().__init__()
        self.seen = []
        self.log_hyperparams = lambda params, *arguments: None

    def log_metrics(self, metrics, step=None):
        self.seen.append((step, metrics))


# the trainer's own calls give the figures of evaluate.py


def test_test_predict_and_validate_give_the_figures_of_evaluate(command, tiny, trained, data, tmp_path):
    run = RunFolder(shutil.copytree(trained, tmp_path / "evaluated"))
    assert command("evaluate.py", f"run={run}", "accelerator=cpu") == 0, command.err
    wanted = json.loads((run.evaluation() / "metrics.json").read_text())
    model = ScratchClassifier.load_from_checkpoint(run.best, map_location="cpu", weights_only=True)
    trainer = pl.Trainer(**QUIET, logger=False, enable_checkpointing=False)
    (tested,) = trainer.test(model, data, verbose=False)
    assert tested["test/acc"] == pytest.approx(wanted["acc"]) and tested["test/loss"] == pytest.approx(wanted["loss"])
    logits, labels = (torch.cat(parts) for parts in zip(*trainer.predict(model, data), strict=True))
    assert float((logits.argmax(1) == labels).float().mean()) == pytest.approx(wanted["acc"])
    (validated,) = trainer.validate(model, data, verbose=False)
    summary = run.read_summary()
    assert validated["val/acc"] == pytest.approx(summary["val/acc"])
    assert validated["val/loss"] == pytest.approx(summary["val/loss"])


def test_raw_pixels_of_any_size_can_be_given_to_the_model(data):
    data.setup("test")
    model = model_for(data).eval()
    pixels = data.loaded["test"][0][:4]
    with torch.no_grad():
        assert torch.equal(model(pixels), model(model.preprocessing(pixels)))
        assert model(pixels.repeat(1, 1, 2, 3)).shape == (4, 10)


def test_the_example_from_python_runs_as_it_stands(shapes_root, tmp_path, monkeypatch):
    code = re.search(
        r"## From Python.*?```python\n(.*?)```", (PROJECT / "docs" / "own-model.md").read_text(), re.DOTALL
    )[1]
    code = code.replace('root="data"', f'root="{shapes_root}", source="shapes"').replace("max_epochs=3", "max_epochs=1")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(code, found)
    assert found["probabilities"].shape == (4, 10) and not found["model"].training


# learning rates


def test_a_users_monitor_sees_the_rates_that_steps_are_made_with(data, tmp_path):
    used, logger = RatesUsed(), CSVLogger(tmp_path)
    fit(model_for(data, schedule="cosine"), data, tmp_path, used, LearningRateMonitor("step"), logger=logger,
        log_every_n_steps=1)  # fmt: skip
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        logged = [float(row["lr-Adam/network"]) for row in csv.DictReader(file) if row.get("lr-Adam/network")]
    assert logged == pytest.approx(used.rates) and len(set(used.rates)) == len(used.rates) == 8


def test_a_callback_that_takes_over_the_rate_has_its_way(data, tmp_path):
    used = RatesUsed()
    averaging = StochasticWeightAveraging(swa_lrs=0.02, swa_epoch_start=1, annealing_epochs=1)
    fit(model_for(data), data, tmp_path, used, averaging, max_epochs=3)
    assert used.rates[0] == 1e-3 and used.rates[-1] == pytest.approx(0.02)


def test_the_search_for_a_learning_rate_is_a_real_one(data, tmp_path):
    model, used = model_for(data), RatesUsed()
    finder = LearningRateFinder(num_training_steps=30, max_lr=0.1)
    fit(model, data, tmp_path, finder, used, max_epochs=20)
    assert len(set(finder.optimal_lr.results["lr"])) == 30
    found = finder.optimal_lr.suggestion()
    assert model.lr == found != 1e-3 and used.rates[-1] == pytest.approx(found)


def test_a_schedule_covers_the_steps_that_there_will_be(data, tmp_path):
    for options, callbacks, steps in (
        ({"max_epochs": 3}, [], 12),
        ({"max_epochs": 100, "max_steps": 6}, [], 6),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, [], 6),
        ({"max_epochs": 3}, [GradientAccumulationScheduler({0: 1, 1: 2})], 8),
    ):
        used = RatesUsed()
        fit(model_for(data, schedule="cosine"), data, tmp_path, used, *callbacks, **options)
        wanted = [5e-4 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
        assert used.rates == pytest.approx(wanted)


@pytest.mark.parametrize("head_epochs", [1, 3])
def test_two_phases_share_the_steps_that_max_steps_leaves(command, tiny, head_epochs):
    backbone = ["model=efficientnet_b0", "model.backbone=test_efficientnet", "model.pretrained=false"]
    schedule = ["data.image_size=64", "model.schedule=cosine", f"callbacks.two_phase.head_epochs={head_epochs}"]
    assert command("train.py", *tiny, *backbone, *schedule, "+trainer.max_steps=6", "trainer.max_epochs=100",
                   "hydra.run.dir=run") == 0, command.err  # fmt: skip
    rows = RunFolder("run").read_metrics()
    assert rows[-1]["step"] == 6 and all(row["lr/head"] > 0 for row in rows)
    assert {row["phase"] for row in rows} == ({1, 2} if head_epochs == 1 else {1})


def test_a_longer_run_says_where_its_learning_rate_goes_on(command, tiny):
    assert command("train.py", *tiny, "model.schedule=cosine", "hydra.run.dir=run") == 0, command.err
    assert command("train.py", "resume=run", "trainer.max_epochs=3") == 0, command.err
    assert "the schedule now covers 6 steps instead of 2" in command.out


# what is kept, and when


def test_the_best_checkpoint_holds_the_weights_of_its_score(data, tmp_path):
    keeper = Checkpoint(str(tmp_path / "kept"), monitor="val/loss")
    trainer = fit(model_for(data, lr=3e-2), data, tmp_path, keeper, val_check_interval=0.5, max_epochs=3)
    best = ScratchClassifier.load_from_checkpoint(keeper.best_model_path, weights_only=True)
    (found,) = pl.Trainer(**QUIET, logger=False).validate(best, data, verbose=False)
    assert found["val/loss"] == pytest.approx(float(trainer.checkpoint_callback.best_model_score))


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("val/acc", "max"),
        ("val/loss", "min"),
        ("train/loss", "min"),
        ("val/macro_f1", "max"),
        ("val/balanced_acc", "max"),
        ("val/depth", None),
    ],
)
def test_the_mode_follows_the_metric(metric, mode):
    assert mode_of(metric) == mode


def test_a_metric_whose_direction_is_unknown_wants_a_mode(tmp_path):
    with pytest.raises(ValueError, match=r"^mode: must be given for val/depth"):
        Checkpoint(str(tmp_path), monitor="val/depth")
    assert Checkpoint(str(tmp_path), monitor="val/depth", mode="max").mode == "max"


def test_no_callback_keeps_the_worst_epoch_unnoticed(command, tiny):
    assert command("train.py", *tiny, "callbacks.early_stopping.monitor=val/acc") == 1
    assert command.err.startswith("error: callbacks.early_stopping.mode=min: val/acc is better when it is higher")


@pytest.mark.parametrize("metric", ["val/macro_f1", "val/balanced_acc"])
def test_every_metric_of_validation_can_decide_which_epoch_is_best_and_when_to_stop(command, tiny, metric):
    stop = [f"callbacks.early_stopping.monitor={metric}", "callbacks.early_stopping.mode=max"]
    options = [f"callbacks.checkpoint.monitor={metric}", *stop, "trainer.max_epochs=3", "hydra.run.dir=run"]
    assert command("train.py", *tiny, *options) == 0, command.err
    scores = [row[metric] for row in RunFolder("run").read_metrics()]
    best = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    assert best["callbacks"]["Checkpoint"]["best_score"] == pytest.approx(max(scores), abs=1e-6)
    assert best["epoch"] == scores.index(max(scores))


def test_an_epoch_without_validation_repeats_no_earlier_figures(command, tiny):
    options = ["trainer.max_epochs=4", "+trainer.check_val_every_n_epoch=2", "hydra.run.dir=run"]
    assert command("train.py", *tiny, *options) == 0, command.err
    assert ["val/loss" in row for row in RunFolder("run").read_metrics()] == [False, True, False, True]


def test_the_average_of_weights_is_what_is_kept(command, tiny):
    average = "+callbacks.average={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.5}"
    assert command("train.py", *tiny, average, "hydra.run.dir=run") == 0, command.err
    assert EMAWeightAveraging and command("evaluate.py", "run=run", "accelerator=cpu") == 0, command.err


def test_an_average_that_no_checkpoint_would_hold_is_refused_in_a_line(command, tiny):
    average = "+callbacks.swa={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.02}"
    assert command("train.py", *tiny, average) == 1
    assert "use average=swa" in command.err and len(command.err.splitlines()) == 1


# loggers, bars and what Lightning prints


def test_a_logger_of_ones_own_is_told_each_epoch_before_its_checkpoint_is_saved(data, tmp_path):
    logger, told = Remembers(), []

    class Keeper(Checkpoint):
        def _save(self, trainer, path):
            told.append({name for _, metrics in logger.seen for name in metrics})
            super()._save(trainer, path)

    fit(model_for(data), data, tmp_path, Keeper(str(tmp_path / "kept")), logger=logger)
    assert told[0] >= {"train/loss", "train/acc", "val/loss", "val/acc", "epoch"}
    assert [step for step, metrics in logger.seen if "val/loss" in metrics] == [4, 8]


def test_any_logger_can_take_the_place_of_tensorboard(command, tiny):
    logger = "+logger.mine={_target_: pytorch_lightning.loggers.CSVLogger, save_dir: '${output_dir}'}"
    assert command("train.py", *tiny, "logger=null", logger, "hydra.run.dir=run") == 0, command.err
    with open("run/lightning_logs/version_0/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert any(row["val/loss"] for row in rows) and rows[-1]["best/val/acc"]
    assert command("evaluate.py", "run=run", "accelerator=cpu") == 0, command.err


def test_a_progress_bar_of_ones_own_replaces_ours(command, tiny, capsys):
    bar = "+callbacks.bar={_target_: pytorch_lightning.callbacks.TQDMProgressBar}"
    assert command("train.py", *[one for one in tiny if "progress" not in one], bar) == 0, command.err
    assert TQDMProgressBar and "Epoch 0" in command.out + command.err


def test_what_lightning_is_asked_to_print_is_printed_and_nothing_else_of_its_own(tiny, tmp_path):
    asked = ["trainer.enable_model_summary=true", "+trainer.profiler=simple", "hydra.run.dir=run"]
    for arguments in ([*tiny, *asked], ["resume=run", "trainer.max_epochs=3"]):
        ran = subprocess.run(
            [sys.executable, PROJECT / "train.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "Trainable params" in ran.stdout and "Profiler Report" in ran.stdout
        for unasked in ("GPU available", "weights_only", "Restor"):
            assert unasked not in ran.stdout + ran.stderr


# the trainer's arguments


def test_a_batch_to_overfit_is_the_same_in_every_epoch(data, tmp_path):
    class Seen(pl.Callback):
        def __init__(self):
            self.batches = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batches.append(batch[0].clone())

    seen = Seen()
    fit(model_for(data), data, tmp_path, seen, overfit_batches=1, max_epochs=3)
    assert len(seen.batches) == 3 and all(torch.equal(seen.batches[0], batch) for batch in seen.batches)


def test_a_run_that_has_used_up_its_time_goes_on_when_it_is_resumed(command, tiny, monkeypatch):
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr("pytorch_lightning.callbacks.timer.time.monotonic", lambda: next(clock))
    limit = ["trainer.max_time=00:00:00:30", "trainer.max_epochs=1000", "callbacks.early_stopping=null"]
    assert command("train.py", *tiny, *limit, "hydra.run.dir=run") == 0, command.err
    first = len(RunFolder("run").read_metrics())
    assert 0 < first < 1000 and RunFolder("run").summary.is_file()
    assert command("train.py", "resume=run") == 0, command.err
    rows = RunFolder("run").read_metrics()
    assert first < len(rows) < 1000 and [row["epoch"] for row in rows] == list(range(len(rows)))


def test_the_time_of_a_resumed_run_is_that_of_all_its_parts():
    timer = TrainingTimer("00:00:01:00")
    timer.load_state_dict({"training_seconds": 50.0})
    assert timer.training_seconds == 50.0 and timer.time_remaining() == 60.0


@pytest.mark.slow
def test_processes_that_are_spawned_end_as_usual(command, tiny):
    spawned = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp_spawn", "hydra.run.dir=run"]
    assert command("train.py", *tiny, *spawned) == 0, command.err
    assert RunFolder("run").read_summary()["epochs"] == 1 and Path("run/checkpoints/best.ckpt").is_file()
