"""What is measured on, measurements in turn, and what comes of them: a table and JSON."""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.sources import find_source
from cifar10.errors import UserError
from cifar10.files import atomic_write
from cifar10.machine import commit, processor
from cifar10.training.build import resolve_precision

BATCH = 64
QUICK_IMAGES = 2 * BATCH
FORMATS = {"images/s": ",.0f", "s": ".3g", "GB": ".2f", "TFLOP/s": ".3g"}


@dataclass(frozen=True)
class Settings:
    """What every measurement is told. images: None leaves the number to each measurement."""

    root: str
    source: str
    device: torch.device
    repeats: int
    images: int | None
    quick: bool
    pictures: str | None = None

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "Settings":
        """UserError for a GPU that does not exist."""
        gpu = torch.cuda.is_available() and options.device != "cpu"
        if options.device == "cuda" and not gpu:
            raise UserError("--device cuda: this machine has no GPU; use --device cpu")
        root = Path(options.root or os.environ.get("CIFAR10_ROOT") or "data").expanduser().absolute()
        source = "cifar10" if (root / "cifar-10-batches-py").is_dir() else "shapes"
        device = torch.device("cuda" if gpu else "cpu")
        return cls(str(root), source, device, options.repeats, options.images, options.quick, options.pictures)

    @property
    def accelerator(self) -> str:
        return "gpu" if self.device.type == "cuda" else "cpu"

    @property
    def precision(self) -> str | int:
        return resolve_precision("auto", self.accelerator)

    @property
    def dtype(self) -> torch.dtype:
        """What convolutions and matrix products compute in."""
        return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(self.precision), torch.float32)

    @property
    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.dtype is torch.float32 else torch.autocast(self.device.type, self.dtype)

    @property
    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "16-mixed")

    def count(self, default: int) -> int:
        """How many images to train on; a quarter as many validate."""
        return self.images or (QUICK_IMAGES if self.quick else default)

    def data(self, **options: object) -> CIFAR10DataModule:
        """The data module, its files there."""
        datamodule = CIFAR10DataModule(self.root, self.source, batch_size=BATCH, **options)
        datamodule.prepare_data()
        return datamodule

    def trainer(self, **options: object) -> pl.Trainer:
        """A trainer on the device that keeps and shows nothing, unless told otherwise."""
        quiet = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
        quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
        device = {"accelerator": self.accelerator, "devices": 1, "precision": self.precision}
        return pl.Trainer(**(quiet | device | options))


def now() -> float:
    """Seconds on the clock, when the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(
    settings: Settings, section: str, name: str, unit: str, measured: dict[str, Callable[[], float]], wanted: str = ""
) -> dict[str, object]:
    """A result: ours, and at most one thing beside it, measured in turn (A B A B ...) as the machine's speed drifts.

    wanted: of the ratio, or of the figure where it is one alone.
    """
    runs = {what: [] for what in measured}
    for _ in range(settings.repeats):
        for what, one in measured.items():
            runs[what].append(one())
            print(f"{section}, {name}: {what}: {runs[what][-1]:{FORMATS[unit]}} {unit}", file=sys.stderr)
    medians = {what: statistics.median(values) for what, values in runs.items()}
    ours, *beside = medians.values()
    ratio = ours / beside[0] if beside else None
    result = {"section": section, "name": name, "unit": unit, "runs": runs, "medians": medians}
    return result | {"ratio": ratio, "wanted": wanted}


def environment(settings: Settings) -> dict[str, object]:
    """What the figures hold for."""
    return {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "device": settings.device.type,
        "precision": str(settings.precision),
        "torch": torch.__version__,
        "pytorch-lightning": pl.__version__,
        "commit": commit(),
        "data": find_source(settings.source).name,
        "repeats": settings.repeats,
        "quick": "yes: these figures mean nothing" if settings.quick else "no",
    }


def table(results: list[dict]) -> str:
    rows = [["section", "measured", "ours", "beside", "ratio", "wanted"]]
    for result in results:
        cells = [
            f"{what}: {value:{FORMATS[result['unit']]}} {result['unit']}" for what, value in result["medians"].items()
        ]
        ratio = "" if result["ratio"] is None else f"{result['ratio']:.2f}"
        rows.append([result["section"], result["name"], *cells, *[""] * (2 - len(cells)), ratio, result["wanted"]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def write(path: Path, about: dict[str, object], results: list[dict]) -> None:
    """Write everything measured so far as JSON; UserError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        json.dump({"environment": about, "results": results}, file, indent=2)
