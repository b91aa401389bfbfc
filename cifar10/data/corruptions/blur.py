"""The blur corruptions: defocus, glass, motion and zoom.

Filters are summed tap by tap, because the algorithm of a convolution, and with it the last bit, depends on device and
batch.
"""

import math
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from torch import Tensor

from cifar10.data.corruptions.pixels import Rngs, draw, truncate


def defocus_blur(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Filter with a smooth-edged disk."""
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    return convolve(images, disk(radius, sigma), "reflect")


def glass_blur(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Smooth, replace each pixel with a neighbour, smooth.

    The authors' loop means to swap each pixel with one up to one step up and left, but both sides of the assignment are
    views of the same array, so that the pixel is replaced and its neighbour is not; CIFAR-10-C was made that way.
    """
    sigma, times = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    height, width = images.shape[-2:]
    line = gaussian(sigma, int(4 * sigma + 0.5))
    kernel = np.outer(line, line)
    images = truncate(convolve(images, kernel, "replicate")) / 255
    for _ in range(times):
        steps = draw(rngs, lambda rng: rng.integers(-1, 1, (height - 2, width - 2, 2)), images)
        source = torch.arange(height * width, device=images.device).view(height, width).repeat(len(images), 1, 1)
        source[:, 2:, 2:] += steps[..., 0] * width + steps[..., 1]
        images = images.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, 3, -1)).view_as(images)
    return convolve(images, kernel, "replicate")


def motion_blur(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Smear along a line at an angle between -45 and 45 degrees."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return smear(images, radius, sigma, [rng.uniform(-45, 45) for rng in rngs])


def zoom_blur(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """The mean of the image and its zooms by 1.00, 1.01, ... (the first is the image again)."""
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    zooms = Counter(tuple(zoomed_side(side, factor) for side in images.shape[-2:]) for factor in factors)
    images = images.contiguous(memory_format=torch.channels_last)  # interpolates twice as fast
    total = images.clone()
    for sides, times in zooms.items():  # at 32 pixels about two factors give the same zoom
        total.add_(zoom(images, sides), alpha=times)
    return total / (len(factors) + 1)


def convolve(images: Tensor, kernel: np.ndarray, border: str) -> Tensor:
    """Filter each channel with a symmetric kernel of odd size. border: a mode of `torch.nn.functional.pad`."""
    height, width = images.shape[-2:]
    down, across = (side // 2 for side in kernel.shape)
    padded = F.pad(images, (across, across, down, down), mode=border)
    filtered = torch.zeros_like(images)
    for (row, column), weight in np.ndenumerate(kernel):
        if weight > 0:
            filtered.add_(padded[..., row : row + height, column : column + width], alpha=float(weight))
    return filtered


def disk(radius: float, sigma: float) -> np.ndarray:
    """A disk kernel, smoothed by a 3 x 3 Gaussian (`disk` of the authors' script without its border of zeros)."""
    reach = np.arange(-int(radius), int(radius) + 1)
    inside = reach[:, None] ** 2 + reach**2 <= radius**2
    edge = gaussian(sigma, 1)
    return convolve2d(inside / inside.sum(), np.outer(edge, edge))


def gaussian(sigma: float, radius: int) -> np.ndarray:
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def smear(images: Tensor, radius: int, sigma: float, degrees: list[float]) -> Tensor:
    """ImageMagick's MotionBlurImage (MagickCore/effect.c) with an angle per image, rounded as in an 8-bit PNG.

    A pixel becomes the mean of 2 * radius + 1 pixels on the line that starts at it, weighted by half a Gaussian;
    the border is repeated beyond the edge.
    """
    height, width = images.shape[-2:]
    distance = np.arange(2 * radius + 1)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    weights = weights[weights > 1e-6]  # the others contribute less than 0.001 levels
    weights /= weights.sum()
    angles = np.radians(degrees)[:, None]  # rounded on the CPU, as a device might round differently
    down, across = (np.ceil(distance * part(angles) - 0.5).astype(int) for part in (np.sin, np.cos))
    down, across = (torch.from_numpy(offset).to(images.device) for offset in (down, across))
    smeared = torch.zeros_like(images)
    for tap, weight in enumerate(weights):
        rows = (torch.arange(height, device=images.device) + down[:, tap, None]).clamp(0, height - 1)
        columns = (torch.arange(width, device=images.device) + across[:, tap, None]).clamp(0, width - 1)
        source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None]
        smeared.add_(images.flatten(2).gather(2, source.expand(-1, images.shape[1], -1)).view_as(images), alpha=weight)
    return truncate(smeared + 0.5 / 65535) / 255  # ImageMagick rounds to 16 bits, then truncates to 8


def zoomed_side(side: int, factor: float) -> tuple[int, int]:
    """How many of a side's pixels are zoomed, and to how many, for a factor of at least 1."""
    crop = math.ceil(side / factor)
    return crop, round(crop * factor)


def zoom(images: Tensor, sides: tuple[tuple[int, int], ...]) -> Tensor:
    """Zoom into the centre linearly (the authors' `clipped_zoom`). sides: height's and width's `zoomed_side`."""
    crops, sizes = zip(*sides, strict=True)
    zoomed = F.interpolate(_centre(images, crops), sizes, mode="bilinear", align_corners=True)
    return _centre(zoomed, images.shape[-2:])


def _centre(images: Tensor, sides: tuple[int, ...]) -> Tensor:
    top, left = ((whole - side) // 2 for whole, side in zip(images.shape[-2:], sides, strict=True))
    return images[..., top : top + sides[0], left : left + sides[1]]
