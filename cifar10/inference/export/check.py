"""Whether an exported file answers as PyTorch does, and how fast both are."""

import time
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar10.errors import UserError
from cifar10.inference.export.formats import Function
from cifar10.models.predictor import Predictor
from cifar10.progress import Progress

TOLERANCE = 1e-4  # of a probability
BATCHES = (1, 7, 32)
SHAPES = (None, (1.7, 1.2), (0.6, 0.9), (1.0, 3.1))  # times height and width; None: as they are
TIMED = 32  # images at once
SECONDS = 1.0  # of timing, each


@dataclass(frozen=True)
class Agreement:
    """count: images compared. largest: difference of a probability. speeds: images/s of PyTorch and of the file."""

    count: int
    largest: float
    speeds: tuple[float, float]

    def __str__(self) -> str:
        return f"same classes, probabilities within {self.largest:.1e}"


def check(predictor: Predictor, exported: Function, images: Tensor, name: str) -> Agreement:
    """Compare on images, uint8 (N, 3, H, W), in batches of several sizes, as they are and at other aspect ratios.

    Raises UserError if a class differs or a probability by more than `TOLERANCE`.
    """
    ours = torch.no_grad()(lambda images: predictor(torch.from_numpy(images)).numpy())
    done, largest, variants = 0, 0.0, cycle([(size, shape) for shape in SHAPES for size in BATCHES])
    with Progress(len(images), f"checking {name}") as progress:
        while done < len(images):
            size, shape = next(variants)
            batch = reshaped(images[done : done + size], shape).numpy()
            expected, found = ours(batch), exported(batch)
            largest = max(float(np.abs(expected - found).max()), largest)  # in this order, NaN stays
            if not largest <= TOLERANCE or (expected.argmax(1) != found.argmax(1)).any():
                raise UserError(
                    f"{name}: does not give what PyTorch gives (a probability differs by {largest:.1e}, at"
                    f" {batch.shape[2]} x {batch.shape[3]} px); nothing was written"
                )
            done += len(batch)
            progress.update(len(batch))
    batch = images[:TIMED].numpy()
    return Agreement(done, largest, (speed(ours, batch), speed(exported, batch)))


def reshaped(images: Tensor, shape: tuple[float, float] | None) -> Tensor:
    if shape is None:
        return images
    height, width = (max(1, round(side * times)) for side, times in zip(images.shape[-2:], shape, strict=True))
    return F.interpolate(images, (height, width), mode="nearest")


def speed(function: Function, batch: np.ndarray) -> float:
    """Images/s, of the fastest of several calls."""
    fastest, begun = np.inf, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        function(batch)
        fastest = min(fastest, time.perf_counter() - start)
    return len(batch) / fastest
