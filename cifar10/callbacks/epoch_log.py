"""One line and one row an epoch: the log's progress and `metrics.csv`."""

import csv
import logging
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from cifar10.files import atomic_write

log = logging.getLogger(__name__)


class EpochLog(pl.Callback):
    """Log each epoch's metrics in a line and keep all of them in a CSV file, one row an epoch.

    path: the CSV file. Its columns are epoch (0-based), step, seconds (of the epoch, validation included), phase and
    the learning rate of each parameter group where there are such, then every metric of `trainer.callback_metrics`.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def state_dict(self) -> dict:
        return {"rows": self.rows, "elapsed": time.perf_counter() - self.started}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows = state_dict["rows"]
        self.started = time.perf_counter() - state_dict.get("elapsed", 0.0)  # of the epoch that goes on

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": round(time.perf_counter() - self.started, 3),
        }
        row |= {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
        row |= {f"lr/{group['role']}": group["lr"] for group in pl_module.optimizers().param_groups if group["params"]}
        self.rows = [kept for kept in self.rows if kept["epoch"] < row["epoch"]] + [row]
        self._write(trainer, row)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        columns = list(dict.fromkeys(name for kept in self.rows for name in kept))
        with atomic_write(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        nan = float("nan")
        log.info(
            "epoch %*d/%d%s  train loss %.4f acc %.4f  val loss %.4f acc %.4f  %.1f s",
            len(str(trainer.max_epochs)),
            row["epoch"] + 1,
            trainer.max_epochs,
            f"  phase {row['phase']:.0f}" if "phase" in row else "",
            *(row.get(name, nan) for name in ("train/loss", "train/acc", "val/loss", "val/acc")),
            row["seconds"],
        )
