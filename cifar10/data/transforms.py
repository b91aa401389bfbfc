"""Whole-batch transforms on the device: crop, flip, mixup, cutmix, cutout, resize, normalise.

Every image has its own random numbers, which the random transforms take as an argument: the same images and numbers
give the same result on any device, in any batch and on any number of processes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar10.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the training images; each is off by default.

    crop_padding: pixels of reflect padding on each side before a random crop of the native size, less than that size.
    flip: mirror left to right with probability 0.5. cutout: side of the zeroed square, in native pixels.
    mixup_alpha, cutmix_alpha: of Beta(alpha, alpha), at most 1e6; with both on, each image gets one of them at random.
    Raises ValueError for a value out of range.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name}={value}: must be 0 or more pixels")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 <= (value := getattr(self, name)) <= 1e6:  # so that NaN is refused too
                raise ValueError(f"{name}={value}: must be between 0 and 1,000,000")

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Random numbers for `count` images: float32 (count, 10), in the columns that `apply` reads."""
        draws = np.ones((count, 10), dtype=np.float32)
        draws[:, :8] = rng.random((count, 8), dtype=np.float32)
        for column, alpha in ((8, self.mixup_alpha), (9, self.cutmix_alpha)):
            if alpha > 0:
                draws[:, column] = rng.beta(alpha, alpha, count)
        return torch.from_numpy(draws)

    def view(self, images: Tensor, number: int, draws: Tensor, preprocessing: Preprocessing) -> Tensor:
        """A fixed view of each image: 0 is the image itself, 1 its mirror image if `flip`, the others are shifted.

        images: uint8 (B, 3, H, W). draws: (B, 2), uniform in [0, 1): how far a shifted view moves, up to `crop_padding`
        pixels. If `flip`, odd views are mirrored. Returns the network's input.
        """
        centre = (self.crop_padding + 0.5) / (2 * self.crop_padding + 1)
        shifted = self.crop_padding > 0 and number > int(self.flip)
        mirrored = torch.full_like(draws[:, :1], 0.0 if self.flip and number % 2 else 1.0)
        offsets = draws if shifted else torch.full_like(draws, centre)
        if number:
            images = crop_and_flip(images, torch.cat([offsets, mirrored], 1), self.crop_padding, self.flip)
        return preprocessing(images)

    def apply(self, images: Tensor, labels: Tensor, draws: Tensor, preprocessing: Preprocessing, num_classes: int):
        """uint8 (B, 3, H, W), labels (B,), draws (B, 10) -> the network's input and its targets.

        Targets are the labels, or class probabilities (B, num_classes) under mixup and cutmix.
        """
        if self.crop_padding or self.flip:
            images = crop_and_flip(images, draws[:, 0:3], self.crop_padding, self.flip)
        images, targets = preprocessing.normalise(images), labels
        if self.mixup_alpha or self.cutmix_alpha:
            use_cutmix = draws[:, 3] < (0.5 if self.mixup_alpha and self.cutmix_alpha else float(self.cutmix_alpha > 0))
            images, kept = mix(images, use_cutmix, draws[:, 8], draws[:, 9], draws[:, 4:6])
            one_hot = F.one_hot(labels, num_classes).to(images.dtype)
            targets = kept[:, None] * one_hot + (1 - kept[:, None]) * one_hot.flip(0)
        if self.cutout:
            images = cutout(images, draws[:, 6:8], self.cutout)
        return preprocessing.resize(images), targets


def crop_and_flip(images: Tensor, draws: Tensor, padding: int, flip: bool) -> Tensor:
    """Crop the reflect-padded image at a random offset and mirror it at random, in one gather.

    images: (B, C, H, W), any dtype. draws: (B, 3), uniform in [0, 1): row offset, column offset, flip if below 0.5.
    `padding` must be less than the image's sides.
    """
    batch, channels, height, width = images.shape
    offset = (draws[:, 0:2] * (2 * padding + 1)).long() - padding
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


def cutout(images: Tensor, draws: Tensor, size: int) -> Tensor:
    """Zero one random square per image (DeVries & Taylor 2017).

    images: float (B, C, H, W), normalised, so that zero is the mean colour. draws: (B, 2), uniform in [0, 1): the
    square's centre, so that the square may extend beyond the border, as in the paper.
    """
    height, width = images.shape[-2:]
    top = (draws[:, 0] * height).long() - size // 2
    left = (draws[:, 1] * width).long() - size // 2
    return images * ~box(top, left, top + size, left + size, height, width)


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
