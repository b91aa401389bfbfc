"""Which random changes training images get, and the random numbers that decide about each image.

`Batches` draws them for an epoch, the data module applies them to a batch on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar10.data.augmentation.colour import jitter
from cifar10.data.augmentation.policies import POLICIES, apply_policy
from cifar10.data.augmentation.transforms import crop_and_flip, cutout, erase, mix, random_resized_crop
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError

FLIP = 2  # the column of an image's draws that decides whether it is mirrored: if below 0.5
FIRST_FLIPS = 0xF11  # of the random numbers that decide about the first epoch, if flips alternate


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the training images; each is off by default.

    crop_padding: pixels of reflect padding on each side before a random crop of the native size, less than that size.
    flip: mirror left to right with probability 0.5; "alternating": in every second epoch, beginning with the first or
    the second (Jordan 2024, section 3.6). cutout: side of the zeroed square, in native pixels.
    mixup_alpha, cutmix_alpha: of Beta(alpha, alpha), at most 1e6; with both on, each image gets one of them at random.
    crop_scale: smallest and largest part of the image's area that a random crop resizes to the network's size, in place
    of `crop_padding`. jitter: brightness, contrast and saturation change by factors from 1 - jitter to 1 + jitter.
    hue: turns by up to this fraction of the circle either way. policy: a name in `POLICIES`.
    erasing: the probability of random erasing.
    Raises ValueError for a value out of range.
    """

    crop_padding: int = 0
    flip: bool | str = False
    cutout: int = 0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    crop_scale: Sequence[float] | None = None
    jitter: float = 0.0
    hue: float = 0.0
    policy: str | None = None
    erasing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name}={value}: must be 0 or more pixels")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 <= (value := getattr(self, name)) <= 1e6:  # so that NaN is refused too
                raise ValueError(f"{name}={value}: must be between 0 and 1,000,000")
        for name, most in (("jitter", 1.0), ("hue", 0.5), ("erasing", 1.0)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}={value}: must be between 0 and {most}")
        if self.flip not in (False, True, "alternating"):
            raise ValueError(f"flip={self.flip}: must be true, false or alternating")
        areas = self.crop_scale
        if areas is not None and not (len(areas) == 2 and 0 < areas[0] <= areas[1] <= 1):
            raise ValueError(f"crop_scale={list(areas)}: must be two parts of an image's area, such as [0.35, 1.0]")
        if self.policy not in (None, *POLICIES):
            raise ValueError(f"policy={self.policy}: must be null or one of {', '.join(POLICIES)}")

    def check_sides(self, sides: Sequence[int]) -> None:
        """UserError if images with these sides in pixels are too small for it."""
        if self.crop_padding >= min(sides):
            raise UserError(f"data.crop_padding={self.crop_padding}: must be below the image's side")
        if self.cutout > min(sides):
            raise UserError(f"data.cutout={self.cutout}: must not exceed the image's side")

    def check_views(self, views: int) -> None:
        """UserError if so many fixed views of each image cannot stand for it."""
        setting = f"callbacks.feature_caching.views={views}"
        for name in ("cutout", "mixup_alpha", "cutmix_alpha", "crop_scale", "jitter", "hue", "policy", "erasing"):
            if getattr(self, name):
                off = "null" if name in ("crop_scale", "policy") else 0
                raise UserError(
                    f"{setting}: data.{name} needs new random numbers every epoch; set it to {off}, or views to 0"
                )
        if views > (different := 1 + bool(self.flip)) and not self.crop_padding:
            raise UserError(
                f"{setting}: without data.crop_padding{' and data.flip' * (not self.flip)} further views are the same;"
                f" set it to {different}"
            )

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Random numbers for `count` images: float32 (count, 10 or 29), in the columns that `apply` reads.

        No setting changes what another one draws, but for mixup and cutmix, which change what comes after them.
        """
        draws = np.ones((count, 10), dtype=np.float32)
        draws[:, :8] = rng.random((count, 8), dtype=np.float32)
        for column, alpha in ((8, self.mixup_alpha), (9, self.cutmix_alpha)):
            if alpha > 0:
                draws[:, column] = rng.beta(alpha, alpha, count)
        if self.crop_scale or self.jitter or self.hue or self.policy or self.erasing:
            draws = np.concatenate([draws, rng.random((count, 19), dtype=np.float32)], 1)
        return torch.from_numpy(draws)

    def view(self, images: Tensor, number: int, draws: Tensor, preprocessing: Preprocessing) -> Tensor:
        """A fixed view of each image: 0 is the image itself, 1 its mirror image if `flip`, the others are shifted.

        images: uint8 (B, 3, H, W). draws: (B, 2), uniform in [0, 1): how far a shifted view moves, up to `crop_padding`
        pixels. If `flip`, odd views are mirrored. Returns the network's input.
        """
        centre = (self.crop_padding + 0.5) / (2 * self.crop_padding + 1)
        shifted = self.crop_padding > 0 and number > bool(self.flip)
        mirrored = torch.full_like(draws[:, :1], 0.0 if self.flip and number % 2 else 1.0)
        offsets = draws if shifted else torch.full_like(draws, centre)
        if number:
            images = crop_and_flip(images, torch.cat([offsets, mirrored], 1), self.crop_padding, bool(self.flip))
        return preprocessing(images)

    def apply(self, images: Tensor, labels: Tensor, draws: Tensor, preprocessing: Preprocessing, num_classes: int):
        """uint8 (B, 3, H, W), labels (B,), what `draw` gave -> the network's input and its targets.

        Targets are the labels, or class probabilities (B, num_classes) under mixup and cutmix. A teacher's
        probabilities (B, num_classes) may stand in for the labels.
        """
        images = preprocessing.fit(images)
        native = images.shape[-1]
        at_once = 16 if images.device.type == "cpu" else len(images)  # what a CPU's cache holds
        parts = zip(images.split(at_once), draws.split(at_once), strict=True)
        images = torch.cat([preprocessing.normalise(self.change_pixels(*part, preprocessing)) for part in parts])
        targets = labels
        if self.mixup_alpha or self.cutmix_alpha:
            use_cutmix = draws[:, 3] < (0.5 if self.mixup_alpha and self.cutmix_alpha else float(self.cutmix_alpha > 0))
            images, kept = mix(images, use_cutmix, draws[:, 8], draws[:, 9], draws[:, 4:6])
            one_hot = (F.one_hot(labels, num_classes) if labels.ndim == 1 else labels).to(images.dtype)
            targets = kept[:, None] * one_hot + (1 - kept[:, None]) * one_hot.flip(0)
        if self.cutout:
            images = cutout(images, draws[:, 6:8], round(self.cutout * images.shape[-1] / native))
        if self.erasing:
            images = erase(images, draws[:, 24:29], self.erasing)
        return preprocessing.resize(images), targets

    def change_pixels(self, images: Tensor, draws: Tensor, preprocessing: Preprocessing) -> Tensor:
        """What comes before normalising: crop, flip, policy and jitter, in this order; pixels from 0 to 255."""
        size = preprocessing.image_size
        if self.crop_scale:
            mirrored = (draws[:, FLIP] < 0.5) & bool(self.flip)
            interpolation = preprocessing.interpolation
            images = random_resized_crop(images, draws[:, 10:14], mirrored, self.crop_scale, size, interpolation)
        elif self.crop_padding or self.flip:
            images = crop_and_flip(images, draws[:, 0:3], self.crop_padding, bool(self.flip))
        if not (self.policy or self.jitter or self.hue):
            return images
        # These take longest, and so run where there are fewest pixels: large images are made smaller first, while
        # small ones grow last of all.
        if min(images.shape[-2:]) > size:
            images = preprocessing.resize(images.float())
        if self.policy:
            pixels = images if images.dtype == torch.uint8 else images.round_().clamp_(0, 255).to(torch.uint8)
            images = apply_policy(pixels, draws[:, 14:20], self.policy)
        if self.jitter or self.hue:
            images = jitter(images, draws[:, 20:24], self.jitter, self.hue)
        return images
