"""The corruptions of CIFAR-10-C, computed on whole batches: what a comparison's robustness is measured on.

Definitions and parameters are those of Hendrycks & Dietterich 2019 (section 4.1) as their script for CIFAR-10 has them
(ImageNet-C/create_c/make_cifar_c.py in github.com/hendrycks/robustness); the random numbers are our own. Of the 15,
`frost` is left out: it needs the authors' photographs. The parameters are made for 32 pixels and stay the same in
pixels at any other size.
"""

import difflib
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cifar10.data.corruptions import blur, digital, noise, weather
from cifar10.data.corruptions.pixels import truncate
from cifar10.errors import UserError

CORRUPTIONS: dict[str, Callable[[Tensor, int, list[np.random.Generator]], Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
SEVERITIES = (1, 2, 3, 4, 5)

_AT_ONCE = 250  # images: bounds the memory, and on a CPU keeps them in its cache


def corrupt(images: Tensor, name: str, severity: int, numbers: Tensor) -> Tensor:
    """Corrupt uint8 images (B, 3, H, W), at least 16 pixels a side, on their device; the input stays as it is.

    numbers: int64 (B,), not negative: each image's number in its set. An image's random numbers are a function of
    name, severity and number alone. The result is truncated to whole levels, as the authors' is. Raises UserError for
    an unknown name and ValueError for a severity outside 1 to 5.
    """
    if name not in CORRUPTIONS:
        near = difflib.get_close_matches(name, CORRUPTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CORRUPTIONS)}"
        raise UserError(f"no corruption is called {name}; {hint}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}, not {severity}")
    if images.dtype != torch.uint8 or len(images) != len(numbers):
        raise ValueError("images must be uint8, with one number each")
    corrupted = torch.empty_like(images)
    for part, into, which in zip(*(whole.split(_AT_ONCE) for whole in (images, corrupted, numbers)), strict=True):
        if len(part):
            rngs = [np.random.default_rng([zlib.crc32(name.encode()), severity, n]) for n in which.tolist()]
            into.copy_(truncate(CORRUPTIONS[name](part / 255, severity, rngs)))
    return corrupted
