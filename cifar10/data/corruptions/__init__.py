"""The corruptions of CIFAR-10-C, computed on whole batches, for measuring robustness.

Definitions and parameters are those of Hendrycks & Dietterich 2019 (section 4.1) as in their script for CIFAR-10
(ImageNet-C/create_c/make_cifar_c.py in github.com/hendrycks/robustness); the random numbers are our own. Of the 15,
`frost` is missing: it needs the authors' photographs. The parameters are meant for images of 32 pixels and are not
scaled for other sizes.
"""

import difflib
import zlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from cifar10.data.corruptions import blur, digital, noise, weather
from cifar10.data.corruptions.pixels import Rngs, truncate

GROUPS: dict[str, tuple[Callable[[Tensor, int, Rngs], Tensor], ...]] = {
    "noise": (noise.gaussian_noise, noise.shot_noise, noise.impulse_noise),
    "blur": (blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur),
    "weather": (weather.snow, weather.fog, weather.brightness),
    "digital": (digital.contrast, digital.elastic_transform, digital.pixelate, digital.jpeg_compression),
}
CORRUPTIONS = {corruption.__name__: corruption for group in GROUPS.values() for corruption in group}
SEVERITIES = (1, 2, 3, 4, 5)

_AT_ONCE = 250  # images: limits memory, and on a CPU keeps them in its cache


def names_of(choices: Iterable[str]) -> list[str]:
    """The corruptions that are chosen by their own name, by their group's or by "all", each once.

    Raises ValueError for an unknown name.
    """
    members = {
        "all": list(CORRUPTIONS),
        **{group: [corruption.__name__ for corruption in corruptions] for group, corruptions in GROUPS.items()},
        **{name: [name] for name in CORRUPTIONS},
    }
    for choice in choices:
        if choice not in members:
            near = difflib.get_close_matches(choice, members, n=1)
            hint = f"did you mean {near[0]}?" if near else f"available: {', '.join(members)}"
            raise ValueError(f"names={choice}: no such corruption; {hint}")
    return list(dict.fromkeys(name for choice in choices for name in members[choice]))


def corrupt(images: Tensor, name: str, severity: int, numbers: Tensor) -> Tensor:
    """A corrupted copy of uint8 images (B, 3, H, W), at least 16 pixels a side, on their device.

    numbers: int64 (B,), not negative: each image's number in its set. An image's random numbers are a function of
    name, severity and number alone. The result is truncated to whole levels, as the authors' is. Raises ValueError for
    an unknown name and for a severity outside 1 to 5.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"name={name}: must be one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity={severity}: must be one of {SEVERITIES}")
    if images.dtype != torch.uint8:
        raise ValueError(f"images: must be uint8, not {images.dtype}")
    if len(images) != len(numbers):
        raise ValueError(f"numbers: must be one for each of the {len(images)} images, not {len(numbers)}")
    corrupted = torch.empty_like(images)
    for part, into, which in zip(*(whole.split(_AT_ONCE) for whole in (images, corrupted, numbers)), strict=True):
        if len(part):
            rngs = [np.random.default_rng([zlib.crc32(name.encode()), severity, n]) for n in which.tolist()]
            into.copy_(truncate(CORRUPTIONS[name](part / 255, severity, rngs)))
    return corrupted
