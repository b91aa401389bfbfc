"""Smaller training images at first, which cost less; the network's own size towards the end."""

import logging
from typing import Any

import pytorch_lightning as pl

from cifar10.errors import UserError

log = logging.getLogger(__name__)


class ProgressiveResizing(pl.Callback):
    """Training images grow from `smallest` to the network's image size (Howard et al. 2018; Tan & Le 2021, section 4).

    smallest: side in pixels in the first epoch. until: the part of the epochs after which they have their full size, in
    (0, 1]. multiple: sides are multiples of it. An epoch's size depends on nothing but its number. Validation has the
    full size throughout.
    """

    def __init__(self, smallest: int, until: float = 0.5, multiple: int = 4):
        if smallest < 1:
            raise ValueError(f"smallest={smallest}: must be at least one pixel")
        if not 0 < until <= 1:
            raise ValueError(f"until={until}: must be a fraction of the epochs, in (0, 1]")
        if multiple < 1:
            raise ValueError(f"multiple={multiple}: must be at least one pixel")
        self.smallest, self.until, self.multiple = smallest, until, multiple

    def size(self, epoch: int, epochs: int, full: int) -> int:
        """The side in pixels in an epoch, counted from 0, of so many."""
        grown = min(1.0, epoch / (self.until * epochs))
        size = self.smallest + grown * (full - self.smallest)
        return full if grown == 1 else min(full, round(size / self.multiple) * self.multiple)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        full = pl_module.preprocessing.image_size
        if stage == "fit" and self.smallest > full:
            raise UserError(f"callbacks.progressive_resizing.smallest={self.smallest}: the network takes {full} pixels")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        size = self.size(trainer.current_epoch, trainer.max_epochs, pl_module.preprocessing.image_size)
        trainer.datamodule.train_at(size)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.datamodule.train_at(None)
