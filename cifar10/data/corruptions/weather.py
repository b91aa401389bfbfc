"""The weather corruptions: snow, fog and brightness."""

import numpy as np
import torch
from torch import Tensor

from cifar10.data.corruptions.blur import smear, zoom, zoomed_side
from cifar10.data.corruptions.pixels import Rngs, draw, truncate


def snow(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Whiten the image, then add a layer of flakes smeared downwards and the same layer rotated by 180 degrees."""
    mean, sd, factor, threshold, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    flakes = mean + sd * draw(rngs, lambda rng: rng.standard_normal((1, *images.shape[-2:]), np.float32), images)
    flakes = zoom(flakes, tuple(zoomed_side(side, factor) for side in images.shape[-2:]))
    flakes = truncate(torch.where(flakes < threshold, 0, flakes)) / 255
    flakes = smear(flakes, radius, sigma, [rng.uniform(-135, -45) for rng in rngs])
    red, green, blue = images.split(1, dim=1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    whitened = kept * images + (1 - kept) * torch.maximum(images, 1.5 * grey + 0.5)
    return whitened + flakes + flakes.flip(-2, -1)


def fog(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Add a plasma fractal and scale back to the image's maximum."""
    strength, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    height, width = images.shape[-2:]
    brightest = images.amax((1, 2, 3), keepdim=True)
    heights = plasma(max(height, width), decay, rngs, images)[:, None, :height, :width]
    return (images + strength * heights) * brightest / (brightest + strength)


def brightness(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Add to HSV's value; hue and saturation stay, so that red, green and blue are multiplied by the same factor."""
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value = images.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, images / value * brighter, brighter)


def plasma(side: int, decay: float, rngs: Rngs, like: Tensor) -> Tensor:
    """Fractal heights by the diamond-square algorithm with wrapped borders: (B, n, n), scaled to fill [0, 1].

    n: the smallest power of two that is at least `side`. Each halving of the grid divides the noise by `decay` squared.
    """
    step = side = 1 << (side - 1).bit_length()
    noise = draw(rngs, lambda rng: rng.uniform(-1, 1, side * side - 1), like)
    heights = noise.new_zeros(len(rngs), side, side)
    amplitude, used = 100.0, 0
    while step > 1:
        half, grid = step // 2, side // step
        wobbles = noise[:, used : used + 3 * grid * grid].view(-1, 3, grid, grid) * amplitude**2
        corners = heights[:, ::step, ::step]
        edges = corners + corners.roll(-1, 1)
        centres = (edges + edges.roll(-1, 2)) / 4 + wobbles[:, 0]
        heights[:, half::step, half::step] = centres
        tops = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        heights[:, ::step, half::step] = tops / 4 + wobbles[:, 1]
        lefts = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        heights[:, half::step, ::step] = lefts / 4 + wobbles[:, 2]
        step, amplitude, used = half, amplitude / decay, used + 3 * grid * grid
    lowest, highest = (extreme((1, 2), keepdim=True) for extreme in (heights.amin, heights.amax))
    return (heights - lowest) / (highest - lowest)
