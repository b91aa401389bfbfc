"""A bar for the current epoch, which makes way for the epoch's line in the log."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

HIDDEN = ("v_num", "macro_f1", "balanced_acc")  # the bar has one line


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, counting epochs from 1 as the log does, and cleared when the epoch's line is due.

    It must come before `EpochLog` among the callbacks.
    """

    def __init__(self):
        super().__init__(refresh_rate=10, leave=False)

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: object) -> None:
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.train_progress_bar.clear()

    def on_train_end(self, *arguments: object) -> None:
        self.train_progress_bar.leave = False
        super().on_train_end(*arguments)

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        if trainer.training and pl_module.train_metrics.confusion.any():
            metrics["train/loss"] = f"{float(pl_module.train_metrics.running_loss):.3f}"
        return {name: value for name, value in metrics.items() if not name.endswith(HIDDEN)}
