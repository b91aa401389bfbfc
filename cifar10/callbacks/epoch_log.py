"""One line and one row per epoch: the log's progress and `metrics.csv`."""

import csv
import logging
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from cifar10.files import atomic_write

log = logging.getLogger(__name__)


class EpochLog(pl.Callback):
    """Log each epoch's metrics on one line and keep them all in a CSV file, one row per epoch.

    path: the CSV file. Its columns are epoch (0-based), step, seconds (of the epoch, validation included), phase, if
    any, and the learning rate of each parameter group at the epoch's last step, then every metric of
    `trainer.callback_metrics`; validation metrics are empty for an epoch without validation.
    """

    changes_training = False

    def __init__(self, path: str):
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self.started = time.perf_counter()
        self.rates: dict[str, float] = {}
        self.validated = False

    def state_dict(self) -> dict:
        elapsed = time.perf_counter() - self.started
        return {"rows": self.rows, "elapsed": elapsed, "rates": self.rates, "validated": self.validated}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows, self.rates = state_dict["rows"], state_dict["rates"]
        self.validated = state_dict["validated"]
        self.started = time.perf_counter() - state_dict["elapsed"]  # of the epoch that is resumed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.validated = time.perf_counter(), False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        groups = trainer.optimizers[0].param_groups
        self.rates = {f"lr/{group.get('role', 'all')}": group["lr"] for group in groups if group["params"]}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": round(time.perf_counter() - self.started, 3),
        }
        metrics = {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
        row |= {name: value for name, value in metrics.items() if self.validated or not name.startswith("val/")}
        row |= self.rates
        self.rows = [kept for kept in self.rows if kept["epoch"] < row["epoch"]] + [row]
        self._write(trainer, row)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        columns = list(dict.fromkeys(name for kept in self.rows for name in kept))
        with atomic_write(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        phase = f"  phase {row['phase']:.0f}" if "phase" in row else ""
        monitor = getattr(trainer.checkpoint_callback, "monitor", None) or ""  # what decides is shown, too
        names = dict.fromkeys(("loss", "acc", monitor.rpartition("/")[2]))
        shown = {stage: [name for name in names if f"{stage}/{name}" in row] for stage in ("train", "val")}
        parts = [
            " ".join([stage, *(f"{name} {row[f'{stage}/{name}']:.4f}" for name in found)])
            for stage, found in shown.items()
            if found
        ]
        number = f"{row['epoch'] + 1:{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"
        log.info("  ".join([f"epoch {number}{phase}", *parts, f"{row['seconds']:.1f} s"]))
