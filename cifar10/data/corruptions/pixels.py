"""What the corruptions share: random numbers image by image, and whole levels from pixels in [0, 1]."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def draw(rngs: list[np.random.Generator], sample: Callable[[np.random.Generator], np.ndarray], like: Tensor) -> Tensor:
    """One sample from each image's generator, (B, ...), on the device of `like` and, if not whole, of its dtype."""
    drawn = torch.from_numpy(np.stack([sample(rng) for rng in rngs]))
    return drawn.to(like.device, like.dtype if drawn.is_floating_point() else drawn.dtype)


def truncate(images: Tensor) -> Tensor:
    """Pixels, clipped to [0, 1], as uint8 levels 0 to 255, rounded down."""
    return images.clamp(0, 1).mul(255).add(2e-4).to(torch.uint8)  # float32's error, 1e-4, must not cost a whole level
