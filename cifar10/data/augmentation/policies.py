"""TrivialAugment and RandAugment: operations drawn for each image of a batch, on uint8 pixels.

Our own code, as torchvision's v2 draws one operation and strength for a whole batch, and kornia one operation, from
the global generator; an operation's values are torchvision's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import autocontrast, equalize

from cifar10.data.augmentation.colour import recolour
from cifar10.data.augmentation.transforms import choose

LEVELS = 31  # from 0, nothing, to 30, the most


class Policy(NamedTuple):
    """How many operations an image gets, at which level (None: any), and what the highest level of each means."""

    operations: int
    level: int | None
    shear: float  # tangent
    translation: Callable[[int], float]  # of the side in pixels, in pixels
    rotation: float  # degrees
    enhancement: float  # factors are 1 plus or minus this
    bits: int  # that posterizing takes away


POLICIES = {
    "trivialaugment": Policy(1, None, 0.99, lambda side: 32.0, 135.0, 0.99, 6),  # Mueller & Hutter 2021, the wide space
    "randaugment": Policy(2, 9, 0.3, lambda side: side * 150 / 331, 30.0, 0.9, 4),  # Cubuk et al. 2020
}


def apply_policy(images: Tensor, draws: Tensor, name: str) -> Tensor:
    """Change each image by the operations that it drew: uint8 (B, 3, H, W), the same out.

    draws: (B, 6), uniform in [0, 1): operation, level and sign of the first operation, then of the second.
    """
    policy = POLICIES[name]
    for column in range(0, 3 * policy.operations, 3):
        operation = choose(draws[:, column], len(OPERATIONS))
        level = choose(draws[:, column + 1], LEVELS)
        if policy.level is not None:
            level = torch.full_like(level, policy.level)
        strength = level / (LEVELS - 1)
        signed = torch.where(draws[:, column + 2] < 0.5, -strength, strength)
        # Sorted, the images of each change are one slice. Only the slices' sizes have to leave the device.
        order = operation.argsort()
        counts = iter(operation.bincount(minlength=len(OPERATIONS)).tolist())
        sizes = [sum(next(counts) for _ in names) for names in CHANGES.values()]
        columns = (each.index_select(0, order).split(sizes) for each in (images, operation, strength, signed))
        changed = [change(*part, policy) for change, *part in zip(CHANGES, *columns, strict=True) if len(part[0])]
        images = torch.cat(changed).index_select(0, order.argsort())
    return images


def drew(name: str, operation: Tensor, values: Tensor) -> Tensor:
    """The values of the images that drew this operation, zero for the others."""
    return values * (operation == OPERATIONS.index(name))


def move(images: Tensor, operation: Tensor, strength: Tensor, signed: Tensor, policy: Policy) -> Tensor:
    """Shear, shift or rotate each image: all of them in one bilinear resampling; what comes into view is black."""
    height, width = images.shape[-2:]
    operation, signed = operation.view(-1, 1, 1), signed.view(-1, 1, 1)
    shear_x, shear_y = (drew(name, operation, signed * policy.shear) for name in ("shear_x", "shear_y"))
    shift_x = drew("translate_x", operation, (signed * policy.translation(width)).trunc())
    shift_y = drew("translate_y", operation, (signed * policy.translation(height)).trunc())
    angle = drew("rotate", operation, signed * math.radians(policy.rotation))
    # From where each pixel comes, in pixels from the middle. Shears leave the first row or column in its place.
    x = (torch.arange(width, device=images.device) + 0.5 - width / 2).view(1, 1, -1)
    y = (torch.arange(height, device=images.device) + 0.5 - height / 2).view(1, -1, 1)
    from_x = angle.cos() * x - angle.sin() * y + (shear_x * (y + height / 2) - shift_x)
    from_y = angle.sin() * x + angle.cos() * y + (shear_y * (x + width / 2) - shift_y)
    grid = torch.stack([from_x * (2 / width), from_y * (2 / height)], 3)
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)


def enhance(images: Tensor, operation: Tensor, strength: Tensor, signed: Tensor, policy: Policy) -> Tensor:
    """Change each image's brightness, saturation or contrast: all of them in one product."""
    names = ("brightness", "contrast", "saturation")
    factors = (1 + drew(name, operation, signed * policy.enhancement) for name in names)
    return recolour(images, *factors, hue=torch.zeros_like(signed)).to(torch.uint8)


def sharpen(images: Tensor, operation: Tensor, strength: Tensor, signed: Tensor, policy: Policy) -> Tensor:
    """Blend each image with its smoothed copy, or away from it; the border stays."""
    sharpened = images.float()
    inside = sharpened[..., 1:-1, 1:-1]
    # The mean of 3 x 3 pixels in which the middle counts five times; sums are several times faster than a convolution.
    rows = sharpened[..., :-2, :] + sharpened[..., 1:-1, :] + sharpened[..., 2:, :]
    smooth = ((rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inside) / 13).round()
    inside.sub_((smooth - inside) * (signed * policy.enhancement).view(-1, 1, 1, 1))
    return sharpened.clamp_(0, 255).to(torch.uint8)


def posterize(images: Tensor, operation: Tensor, strength: Tensor, signed: Tensor, policy: Policy) -> Tensor:
    """Clear the lowest bits."""
    bits = (strength * policy.bits).round().to(torch.uint8).view(-1, 1, 1, 1)
    return images >> bits << bits


def solarize(images: Tensor, operation: Tensor, strength: Tensor, signed: Tensor, policy: Policy) -> Tensor:
    """Invert the pixels from a threshold up, which falls from white to black with the level."""
    threshold = (255 - 255 * strength).ceil().to(torch.uint8).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


CHANGES = {  # each with its operations
    (lambda images, *_: images): ("identity",),
    (lambda images, *_: autocontrast(images)): ("autocontrast",),
    (lambda images, *_: equalize(images)): ("equalize",),
    move: ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    enhance: ("brightness", "saturation", "contrast"),
    sharpen: ("sharpness",),
    posterize: ("posterize",),
    solarize: ("solarize",),
}
OPERATIONS = tuple(name for names in CHANGES.values() for name in names)
