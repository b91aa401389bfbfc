"""What is measured on: device, data and how much of it."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.training.build import resolve_precision

BATCH = 64
FEWEST = 2 * BATCH


@dataclass(frozen=True)
class Settings:
    """What every measurement is told.

    total: images of the source's training files. images: None leaves the number to each measurement.
    """

    root: str
    source: str
    total: int
    device: torch.device
    repeats: int
    images: int | None
    quick: bool

    @property
    def accelerator(self) -> str:
        return "gpu" if self.device.type == "cuda" else "cpu"

    @property
    def precision(self) -> str | int:
        return resolve_precision("auto", self.accelerator)

    def count(self, default: int) -> int:
        """How many images to train on; a quarter as many validate."""
        return self.images or min(FEWEST if self.quick else default, most(self.total))

    def data(self, **options: object) -> CIFAR10DataModule:
        """The data module, its files there."""
        datamodule = CIFAR10DataModule(self.root, self.source, batch_size=BATCH, **options)
        datamodule.prepare_data()
        return datamodule

    def trainer(self, **options: object) -> pl.Trainer:
        """A trainer on the device that keeps and shows nothing, unless told otherwise."""
        quiet = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=1,
            precision=self.precision,
            enable_progress_bar=False,
            enable_model_summary=False,
            **(quiet | options),
        )


def settle(options: argparse.Namespace) -> Settings:
    """The settings of a command line; UserError for what this machine or the data does not have."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no GPU; use --device cpu")
    use_gpu = options.device != "cpu" and torch.cuda.is_available()
    root = Path(options.root or os.environ.get("CIFAR10_ROOT") or "data").expanduser().absolute()
    source = "cifar10" if (root / "cifar-10-batches-py").is_dir() else "shapes"
    datamodule = CIFAR10DataModule(str(root), source)
    datamodule.prepare_data()
    total = len(datamodule.source.load("train")[1])
    if options.images is not None and not FEWEST <= options.images <= most(total):
        raise UserError(f"--images {options.images}: must be {FEWEST} to {most(total):,}, and a quarter more validates")
    device = torch.device("cuda" if use_gpu else "cpu")
    return Settings(str(root), source, total, device, options.repeats, options.images, options.quick)


def most(total: int) -> int:
    """The largest number of images that leaves a quarter as many for validation."""
    return total * 4 // 5
