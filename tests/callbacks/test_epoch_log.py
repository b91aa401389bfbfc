"""One row an epoch, whatever happens to the run in between."""

import csv

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from cifar10.callbacks.epoch_log import EpochLog
from cifar10.models.scratch import ScratchClassifier


def fit(datamodule, folder, epochs, resume=None):
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, monitor="val/loss")
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
    assert all(row[name] for row in rows for name in ("train/loss", "train/acc", "val/loss", "val/acc", "lr/network"))
    assert int(rows[1]["step"]) == 2 * int(rows[0]["step"]) > 0


def test_a_resumed_run_continues_the_table_and_repeats_no_epoch(datamodule, tmp_path):
    first = fit(datamodule, tmp_path, 3)
    again = fit(datamodule, tmp_path, 4, resume=tmp_path / "epoch=1.ckpt")
    assert [row["epoch"] for row in again] == ["0", "1", "2", "3"]
    assert again[:2] == first[:2], "what the checkpoint knew stays as it was"
