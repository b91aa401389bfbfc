"""One row an epoch, whatever happens to the run in between."""

import csv
import logging

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from cifar10.callbacks.epoch_log import EpochLog
from cifar10.models.scratch import ScratchClassifier


def fit(datamodule, folder, epochs, resume=None, monitor="val/loss"):
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, monitor=monitor)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[EpochLog(folder / "metrics.csv"), keep], logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(ScratchClassifier(datamodule.class_names), datamodule, ckpt_path=resume, weights_only=True)
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_epoch_has_its_row_with_every_metric(datamodule, tmp_path):
    rows = fit(datamodule, tmp_path, 2)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    metrics = ["train/loss", "train/acc", "val/loss", "val/acc", "val/macro_f1", "val/balanced_acc", "lr/network"]
    assert all(row[name] for row in rows for name in metrics)
    assert not {"train/macro_f1", "train/balanced_acc"} & rows[0].keys()
    assert int(rows[1]["step"]) == 2 * int(rows[0]["step"]) > 0


def test_a_resumed_run_continues_the_table_and_repeats_no_epoch(datamodule, tmp_path):
    first = fit(datamodule, tmp_path, 3)
    again = fit(datamodule, tmp_path, 4, resume=tmp_path / "epoch=1.ckpt")
    assert [row["epoch"] for row in again] == ["0", "1", "2", "3"]
    assert again[:2] == first[:2], "what the checkpoint knew stays as it was"


def test_a_run_of_a_version_with_fewer_metrics_continues_with_more(datamodule, tmp_path):
    fit(datamodule, tmp_path, 1)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    [row] = checkpoint["callbacks"]["EpochLog"]["rows"]
    for name in ("val/macro_f1", "val/balanced_acc"):
        del row[name]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    rows = fit(datamodule, tmp_path, 2, resume=tmp_path / "older.ckpt")
    assert [bool(row["val/macro_f1"]) for row in rows] == [False, True]


@pytest.mark.parametrize(("monitor", "said"), [("val/loss", "loss acc"), ("val/macro_f1", "loss acc macro_f1")])
def test_the_line_of_an_epoch_says_loss_accuracy_and_the_metric_that_decides(
    datamodule, tmp_path, caplog, monitor, said
):
    with caplog.at_level(logging.INFO, "cifar10.callbacks.epoch_log"):
        fit(datamodule, tmp_path, 1, monitor=monitor)
    [line] = [message for message in caplog.messages if message.startswith("epoch 1/1")]
    validation = line.partition("val ")[2].rpartition("  ")[0].split()
    assert " ".join(validation[::2]) == said and "train loss" in line
