"""Whole-batch transforms on the device: crop, flip, mixup, cutmix, cutout, random erasing.

Every image has its own random numbers, which the random transforms take as an argument: the same images and numbers
give the same result on any device, in any batch and on any number of processes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cifar10.data.augmentation.resampling import crop_and_resize


def crop_and_flip(images: Tensor, draws: Tensor, padding: int, flip: bool) -> Tensor:
    """Crop the reflect-padded image at a random offset and mirror it at random, in one gather.

    images: (B, C, H, W), any dtype. draws: (B, 3), uniform in [0, 1): row offset, column offset, flip if below 0.5.
    `padding` must be less than the image's sides.
    """
    batch, channels, height, width = images.shape
    offset = choose(draws[:, 0:2], 2 * padding + 1) - padding
    rows = reflect(torch.arange(height, device=images.device) + offset[:, 0:1], height)  # (B, H)
    columns = reflect(torch.arange(width, device=images.device) + offset[:, 1:2], width)  # (B, W)
    if flip:
        columns = torch.where(draws[:, 2:3] < 0.5, columns.flip(1), columns)
    pixels = (rows * width)[:, :, None] + columns[:, None, :]  # (B, H, W) in the flattened image
    pixels = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, pixels).view_as(images)


def reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices outside [0, size) back in without repeating the border pixel ("reflect" padding)."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def random_resized_crop(
    images: Tensor, draws: Tensor, mirrored: Tensor, areas: Sequence[float], size: int, interpolation: str
) -> Tensor:
    """Resize a random part of each image to (size, size) (Szegedy et al. 2015), see `crop_and_resize`.

    draws: (B, 4), uniform in [0, 1), see `random_boxes`. areas: the smallest and the largest part of the image.
    """
    boxes = random_boxes(draws, images.shape[-2:], areas, ratios=(3 / 4, 4 / 3))
    return crop_and_resize(images, boxes, mirrored, size, interpolation)


def cutout(images: Tensor, draws: Tensor, size: int) -> Tensor:
    """Zero one random square per image (DeVries & Taylor 2017).

    images: float (B, C, H, W), normalised, so that zero is the mean colour. draws: (B, 2), uniform in [0, 1): the
    square's centre, so that the square may extend beyond the border, as in the paper.
    """
    height, width = images.shape[-2:]
    top = (draws[:, 0] * height).long() - size // 2
    left = (draws[:, 1] * width).long() - size // 2
    return images * ~box(top, left, top + size, left + size, height, width)


def erase(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Zero a random box in some of the images (Zhong et al. 2020).

    images: float (B, C, H, W), normalised, so that zero is the mean colour; noise would take a random number for each
    pixel. draws: (B, 5), uniform in [0, 1): erased if the first is below `probability`, and where, see `random_boxes`.
    """
    boxes = random_boxes(draws[:, 1:], images.shape[-2:], areas=(0.02, 1 / 3), ratios=(0.3, 3.3))
    top, left, rows, columns = boxes.unbind(1)
    rows = torch.where(draws[:, 0] < probability, rows, 0)
    return images * ~box(top, left, top + rows, left + columns, *images.shape[-2:])


def mix(images: Tensor, use_cutmix: Tensor, mixup_kept: Tensor, cutmix_kept: Tensor, draws: Tensor):
    """Mix each image with its partner, the image at the mirrored position in the batch.

    mixup (Zhang et al. 2018) blends the two; cutmix (Yun et al. 2019, algorithm 1) pastes a box of the partner whose
    area is the fraction not kept, clipped at the border. images: float (B, C, H, W); use_cutmix: bool (B,);
    mixup_kept, cutmix_kept: (B,) in [0, 1]; draws: (B, 2), uniform in [0, 1): the box's centre.
    Returns the mixed images and the fraction of each that is its own (B,).
    """
    height, width = images.shape[-2:]
    half = (1 - cutmix_kept).sqrt() / 2
    top, bottom = ((draws[:, 0] + sign * half).clamp(0, 1).mul(height).long() for sign in (-1, 1))
    left, right = ((draws[:, 1] + sign * half).clamp(0, 1).mul(width).long() for sign in (-1, 1))
    kept_in_box = 1 - ((bottom - top) * (right - left)).to(images.dtype) / (height * width)
    own = torch.where(
        use_cutmix.view(-1, 1, 1, 1),
        (~box(top, left, bottom, right, height, width)).to(images.dtype),
        mixup_kept.view(-1, 1, 1, 1),
    )
    return images.flip(0).lerp(images, own), torch.where(use_cutmix, kept_in_box, mixup_kept)


def box(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, height: int, width: int) -> Tensor:
    """A box per image as a mask: bool (B, 1, height, width), true where top <= row < bottom, left <= column < right."""
    row = torch.arange(height, device=top.device).view(1, 1, -1, 1)
    column = torch.arange(width, device=top.device).view(1, 1, 1, -1)
    top, left, bottom, right = (edge.view(-1, 1, 1, 1) for edge in (top, left, bottom, right))
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def random_boxes(draws: Tensor, sides: Sequence[int], areas: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """A random box in each image: long (B, 4), top, left, height and width in pixels.

    draws: (B, 4), uniform in [0, 1): area, ratio, row and column. areas: range of the area, as a fraction of the
    image's. ratios: range of width to height, which is log-uniform over those with which the box fits, where
    torchvision draws anew, and so has fewer large boxes.
    """
    height, width = sides
    area = height * width * (areas[0] + (areas[1] - areas[0]) * draws[:, 0])
    narrowest = (area / height**2).log().clamp(min=math.log(ratios[0]))
    widest = (width**2 / area).log().clamp(max=math.log(ratios[1]))
    stretch = ((narrowest + (widest - narrowest) * draws[:, 1]) / 2).exp()
    rows = (area.sqrt() / stretch).round().long().clamp(1, height)
    columns = (area.sqrt() * stretch).round().long().clamp(1, width)
    return torch.stack(
        [choose(draws[:, 2], height - rows + 1), choose(draws[:, 3], width - columns + 1), rows, columns], 1
    )


def choose(draws: Tensor, count: Tensor | int) -> Tensor:
    """One of `count` whole numbers from 0, by draws in [0, 1), which half precision may have rounded up to 1."""
    return (draws * count).long().clamp(max=count - 1)
