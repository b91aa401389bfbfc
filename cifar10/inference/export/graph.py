"""Preprocessing in tensor arithmetic alone, without branches, so that one exported graph takes pictures of any size.

`fit` uses PyTorch's integer kernel, which no exporter knows. Here the same integers are computed by products with
weight matrices in float64, which holds them exactly: the result is bit-identical.
"""

from typing import cast

import torch
from torch import Tensor, nn

from cifar10.data.preprocessing import Preprocessing, affine, resize_matrix

CUBIC = -0.5  # the parameter `a` of PyTorch's antialiased bicubic filter, which is Pillow's (Keys 1981, section III)
HIGHEST = 2**15  # of PyTorch's integer weights
DOUBLE = torch.float64


class GraphPreprocessing(nn.Module):
    """A `Preprocessing` for export: uint8 (B, 3, H, W) of any size -> float32 (B, 3, image_size, image_size)."""

    size: int
    scale: Tensor
    shift: Tensor
    background: Tensor
    matrix: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.size, self.mode = cast(int, preprocessing.store_size), preprocessing.resize_mode
        self.interpolation, self.image_size = preprocessing.interpolation, preprocessing.image_size
        scale, shift = affine(preprocessing.mean, preprocessing.std, torch.device("cpu"))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("shift", shift.clone())
        self.register_buffer("background", torch.tensor(preprocessing.background, dtype=DOUBLE).view(3, 1, 1))
        if self.size != self.image_size and self.interpolation != "nearest":
            matrix = resize_matrix(self.size, self.image_size, self.interpolation, torch.device("cpu"))
            self.register_buffer("matrix", matrix.clone())

    def forward(self, images: Tensor) -> Tensor:
        inputs = torch.addcmul(self.shift, fit_by_matrices(images, self.size, self.mode, self.background), self.scale)
        if self.size == self.image_size:
            return inputs
        if self.interpolation == "nearest":
            return nn.functional.interpolate(inputs, (self.image_size, self.image_size), mode="nearest")
        return self.matrix @ inputs @ self.matrix.T


def fit_by_matrices(images: Tensor, size: int, resize: str, background: Tensor) -> Tensor:
    """`fit` for float arithmetic: uint8 (B, 3, H, W) -> the same numbers as float32 (B, 3, size, size).

    background: float64 (3, 1, 1).
    """
    height, width = (torch.ones_like(images[0, 0].select(axis, 0), dtype=DOUBLE).sum() for axis in (1, 0))
    full = torch.full((), size, dtype=DOUBLE)
    longer, shorter = torch.maximum(height, width), torch.minimum(height, width)
    canvas, axes = images.double(), []
    for side in (width, height):
        used = shorter if resize == "crop" else side
        filled = (full * side / longer).round().clamp(min=1) if resize == "pad" else full
        skipped, start = ((side - used) / 2).floor(), ((full - filled) / 2).floor()
        axes.append((skipped, used, start, filled))
    canvas = in_integers(canvas, axes[0], size)  # along the width first, and rounded, as PyTorch does
    canvas = in_integers(canvas.transpose(2, 3), axes[1], size).transpose(2, 3)
    if resize == "pad":
        place = torch.arange(size, dtype=DOUBLE)
        across, down = ((place >= start) & (place < start + filled) for _, _, start, filled in axes)
        canvas = torch.where(down[:, None] & across, canvas, background)
    return canvas.float()


def in_integers(images: Tensor, axis: tuple[Tensor, ...], size: int) -> Tensor:
    """Resize the last axis of (B, 3, H, W): weighted sums of whole numbers, shifted right by the weights' precision.

    axis: see `weights`.
    """
    skipped, used, start, filled = axis
    matrix, unit = weights(images, skipped, used, start, filled, size)
    return ((images @ matrix.T + unit / 2) / unit).floor().clamp(0, 255)


def weights(
    images: Tensor, skipped: Tensor, used: Tensor, start: Tensor, filled: Tensor, size: int
) -> tuple[Tensor, ...]:
    """The integer weights (size, side) of PyTorch's antialiased bicubic filter, and the number that stands for 1.

    `used` pixels from `skipped` on become `filled` pixels from `start` on; all other weights are 0.
    """
    pixel = torch.ones_like(images[0, 0, 0]).cumsum(0) - 1 - skipped
    row = torch.arange(size, dtype=DOUBLE)[:, None] - start
    scale = used / filled
    wide = scale.clamp(min=1)
    centre = scale * (row + 0.5)
    first = (centre - 2 * wide + 0.5).trunc().clamp(min=0)
    last = torch.minimum((centre + 2 * wide + 0.5).trunc(), used)
    inside = (pixel >= first) & (pixel < last) & (row >= 0) & (row < filled)
    found = torch.where(inside, cubic((pixel - centre + 0.5) / wide), 0.0)
    total = found.sum(1, keepdim=True)
    found = found / torch.where(total == 0, 1.0, total)
    units = 2.0 ** torch.arange(1, 24, dtype=DOUBLE)
    unit = 2.0 ** ((0.5 + found.max() * units).floor() < HIGHEST).double().sum()  # the largest that still fits
    return (found.abs() * unit + 0.5).floor() * found.sign(), unit


def cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
