"""The noise corruptions: Gaussian, shot and impulse noise, independent for each pixel and channel."""

import numpy as np
import torch
from torch import Tensor

from cifar10.data.corruptions.pixels import Rngs, draw


def gaussian_noise(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Add normal noise; its standard deviation is a fraction of the full range."""
    sd = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return images + sd * draw(rngs, lambda rng: rng.standard_normal(images.shape[1:], np.float32), images)


def shot_noise(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Count photons: a Poisson number whose mean is `full` for a white pixel."""
    full = (500, 250, 100, 75, 50)[severity - 1]
    expected = images.cpu().double().mul(full).numpy()
    counts = np.stack([rng.poisson(mean) for rng, mean in zip(rngs, expected, strict=True)])
    return torch.from_numpy(counts).to(images) / full


def impulse_noise(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Set a fraction of the values to 0 or 1, equally often (skimage's "s&p" noise)."""
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    uniform = draw(rngs, lambda rng: rng.random(images.shape[1:], np.float32), images)
    return torch.where(uniform < amount, (uniform < amount / 2).to(images), images)
