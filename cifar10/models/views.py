"""Test-time augmentation: several views of each picture, whose logits are averaged."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cifar10.models.predictor import Predictor


def mirrored(images: Tensor) -> Iterator[Tensor]:
    """The images and their mirror images."""
    yield from (images, images.flip(-1))


def mirrored_and_shifted(images: Tensor) -> Iterator[Tensor]:
    """The same of the images themselves and of two copies, shifted by a pixel to the lower right and the upper left.

    Jordan 2024, section 3.5, counts the unshifted ones twice.
    """
    for pixels in (0, 1, -1):
        yield from mirrored(shift(images, pixels))


def shift(images: Tensor, pixels: int) -> Tensor:
    """Images (B, C, H, W) moved down and to the right, their borders filled by reflection."""
    rows, columns = (reflected(side, pixels).to(images.device) for side in images.shape[-2:])
    return images[..., rows, :][..., columns]


def reflected(side: int, pixels: int) -> Tensor:
    last = max(side - 1, 0)
    return last - (last - (torch.arange(side) - pixels).abs()).abs()


VIEWS = {"flip": (2, mirrored), "flip_shift": (6, mirrored_and_shifted)}  # number, and what makes them


def mean_logits(predictor: Predictor, images: Tensor, views: str) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 (B, C), before the temperature: the mean over the views of this name."""
    count, made = VIEWS[views]
    total: Any = sum(predictor.logits(view) for view in made(images))
    return total / count
