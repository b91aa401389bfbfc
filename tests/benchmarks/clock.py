"""Seconds, and those of an epoch."""

import time

import pytorch_lightning as pl
import torch


def now() -> float:
    """Seconds on the clock, when the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class EpochClock(pl.Callback):
    """The first callback of a run: seconds of its epochs, from the second on, as the first one warms up.

    An epoch is all that happens from its start to the next one's: batches, validation, logs, pictures, checkpoints.
    """

    def __init__(self):
        self.begins: list[float] = []
        self.end = self.mark = self.growing = 0.0

    @property
    def epochs(self) -> int:
        return len(self.begins) - 1

    @property
    def seconds(self) -> float:
        return (self.end - self.begins[1]) / self.epochs

    def extrapolated(self, times: float) -> float:
        """Seconds of an epoch of so many times as many images; what is done once an epoch takes as long."""
        return self.seconds + (times - 1) * self.growing / self.epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begins.append(now())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.end = now()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        self._batch_starts(batch_idx)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self._batch_ends(batch_idx, trainer.num_training_batches)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module, batch, batch_idx: int, *which: int) -> None:
        self._batch_starts(batch_idx)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int, *which) -> None:
        self._batch_ends(batch_idx, trainer.num_val_batches[0])

    def _batch_starts(self, batch_idx: int) -> None:
        if batch_idx == 0:
            self.mark = now()

    def _batch_ends(self, batch_idx: int, batches: int) -> None:
        if batch_idx + 1 == batches and len(self.begins) > 1:
            self.growing += now() - self.mark
