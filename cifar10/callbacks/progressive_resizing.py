"""Smaller training images at first, which cost less; the network's own size towards the end."""

from typing import Any

import pytorch_lightning as pl
import torch

from cifar10.callbacks.feature_caching import FeatureCaching
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError


class ProgressiveResizing(pl.Callback):
    """Training images grow from `smallest` to the network's image size (Howard et al. 2018; Tan & Le 2021, section 4).

    smallest: side in pixels in the first epoch. until: the part of the epochs after which they have their full size, in
    (0, 1]. step: pixels by which they grow. An epoch's size depends on nothing but its number. Validation has the full
    size throughout.
    """

    def __init__(self, smallest: int, until: float = 0.5, step: int = 4):
        if smallest < 1:
            raise ValueError(f"smallest={smallest}: must be at least one pixel")
        if not 0 < until <= 1:
            raise ValueError(f"until={until}: must be a fraction of the epochs, in (0, 1]")
        if step < 1:
            raise ValueError(f"step={step}: must be at least one pixel")
        self.smallest, self.until, self.step = smallest, until, step

    def size(self, epoch: int, epochs: int, full: int) -> int:
        """The side in pixels in an epoch, counted from 0, of so many."""
        grown = min(1.0, epoch / (self.until * epochs))
        steps = round(grown * (full - self.smallest) / self.step)
        return full if grown == 1 else min(full, self.smallest + steps * self.step)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if trainer.max_epochs in (None, -1):
            raise UserError("trainer.max_epochs: must be given, so that it is known when images have their full size")
        setting, full = "callbacks.progressive_resizing", pl_module.preprocessing.image_size
        if self.smallest > full or not takes(pl_module, self.smallest):
            only = "" if self.smallest > full else " only"
            raise UserError(f"{setting}.smallest={self.smallest}: the network takes {full} pixels{only}")
        if any(getattr(callback, "views", 0) for callback in trainer.callbacks if isinstance(callback, FeatureCaching)):
            raise UserError(f"{setting}: cached features have one size; set callbacks.feature_caching.views=0")
        if not hasattr(trainer.datamodule, "training_preprocessing"):
            raise UserError(f"{setting}: needs a data module that can make training images smaller, CIFAR10DataModule")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which a run resumed in mid-epoch does not call

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        settings = pl_module.preprocessing.settings
        size = self.size(trainer.current_epoch, trainer.max_epochs, settings["image_size"])
        trainer.datamodule.training_preprocessing = Preprocessing(**settings | {"image_size": size})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: object, batch: object, batch_idx: int) -> None:
        if trainer.is_last_batch or trainer.should_stop:
            pl_module.log_now({"image_size": float(trainer.datamodule.training_preprocessing.image_size)})


def takes(pl_module: Any, size: int) -> bool:
    """Whether the network makes logits of images with this side in pixels."""
    training, weight = pl_module.training, next(pl_module.parameters())
    try:
        with torch.no_grad():  # where the weights are: during `setup` the module names the device they will be on
            pl_module.eval()(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
    except (RuntimeError, ValueError, AssertionError):
        return False
    finally:
        pl_module.train(training)
    return True
