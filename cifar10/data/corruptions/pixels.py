"""Shared by the corruptions: each image's random numbers, and rounding to whole levels.

A corruption takes float images (B, 3, H, W) in [0, 1], a severity of 1 to 5 and a generator per image, and returns
float images of the same shape, to be clipped to [0, 1].
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Rngs = list[np.random.Generator]


def draw(rngs: Rngs, sample: Callable[[np.random.Generator], np.ndarray], like: Tensor) -> Tensor:
    """One sample from each image's generator, (B, ...), on the device of `like` and, if it is a float, of its dtype."""
    drawn = torch.from_numpy(np.stack([sample(rng) for rng in rngs]))
    return drawn.to(like.device, like.dtype if drawn.is_floating_point() else drawn.dtype)


def truncate(images: Tensor) -> Tensor:
    """Pixels, clipped to [0, 1], as uint8 levels, rounded down."""
    return images.clamp(0, 1).mul(255).add(2e-4).to(torch.uint8)  # else float32's error, 1e-4, could cost a level
