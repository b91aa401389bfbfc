"""What every image goes through before the network, in training and afterwards; it travels in the checkpoint."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
RESIZES = ("crop", "pad", "squash")
WHITE = (255, 255, 255)


class Preprocessing(nn.Module):
    """Make square, normalise and resize: uint8 (B, 3, H, W) of any size -> float32 (B, 3, image_size, image_size).

    image_size: side in pixels of the square input. mean, std: per channel, of pixels in [0, 1].
    interpolation: "bicubic", "bilinear" or "nearest"; the first two antialias where they make an image smaller.
    store_size, resize, background: how a picture becomes the square that training has seen, see `fit`. A store_size of
    None leaves squares as they are.
    Raises ValueError for a value out of range.
    """

    def __init__(
        self,
        image_size: int = 32,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        interpolation: str = "bicubic",
        store_size: int | None = None,
        resize: str = "crop",
        background: tuple[int, ...] = WHITE,
    ):
        super().__init__()
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: must be at least one pixel")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={interpolation}: must be one of {', '.join(INTERPOLATIONS)}")
        self.image_size, self.interpolation = image_size, interpolation
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.set_fit(store_size, resize, background)

    def set_fit(self, store_size: int | None, resize: str, background: Sequence[int]) -> None:
        """Make pictures square in this way from now on; ValueError for a value out of range."""
        check_fit(store_size, resize, background)
        self.store_size, self.resize_mode, self.background = store_size, resize, tuple(background)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that rebuild it: plain values."""
        names = ("image_size", "mean", "std", "interpolation", "store_size", "background")
        return {name: getattr(self, name) for name in names} | {"resize": self.resize_mode}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> the network's input.

        Normalising first gives the same result, as interpolation weights sum to one, and touches (image_size / H)^2
        times fewer pixels. Under autocast it stays float32.
        """
        with torch.autocast(images.device.type, enabled=False):
            return self.resize(self.normalise(self.fit(images)))

    def fit(self, images: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) of any size -> the squares that the network has been trained on, see `fit`."""
        height, width = images.shape[-2:]
        crop, pad = (min(height, width), max(height, width)) if self.store_size is None else (self.store_size,) * 2
        return fit(images, pad if self.resize_mode == "pad" else crop, self.resize_mode, self.background)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels from 0 to 255, of any dtype, (B, 3, H, W) -> float32 (B, 3, H, W), channels last."""
        scale, shift = affine(self.mean, self.std, images.device)
        # Moving the channels last is quicker afterwards.
        return torch.addcmul(shift, images.float(), scale).contiguous(memory_format=torch.channels_last)

    def resize(self, images: Tensor) -> Tensor:
        """float (B, 3, H, W) -> float (B, 3, image_size, image_size)."""
        size, sides = self.image_size, tuple(images.shape[-2:])
        if sides == (size, size):
            return images
        if self.interpolation == "nearest":
            return F.interpolate(images, (size, size), mode="nearest")
        down, across = (resize_matrix(side, size, self.interpolation, images.device) for side in sides)
        shape = (*images.shape[:2], size, size)
        resized = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
        at_once = 8 if images.device.type == "cpu" else len(images)  # what a CPU's cache holds
        for part, into in zip(images.contiguous().split(at_once), resized.split(at_once), strict=True):
            into.copy_(down @ part @ across.T)
        return resized

    def denormalise(self, images: Tensor) -> Tensor:
        """The network's input -> pixels in [0, 1], for pictures."""
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand, each (1, C, 1, 1), that normalise a pixel of 0 to 255 in one multiply-add."""
    means, stds = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
    return (1 / (255 * stds)).float().to(device), (-means / stds).float().to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def resize_matrix(side: int, size: int, interpolation: str, device: torch.device) -> Tensor:
    """The matrix (size, side) that resizes one side of an image, as `torch.nn.functional.interpolate` does.

    Interpolation is linear and separable, so an image x is resized by `A @ x @ A.T`: two matrix products, several times
    faster than a kernel that gathers its pixels one by one.
    """
    unit = torch.eye(side, device=device)[None, None]
    resized = F.interpolate(unit, (size, side), mode=interpolation, align_corners=False, antialias=side > size)
    return resized[0, 0]


def check_fit(size: int | None, resize: str, background: Sequence[int]) -> None:
    """ValueError for arguments that `fit` does not take."""
    if size is not None and size < 1:
        raise ValueError(f"store_size={size}: must be at least one pixel")
    if resize not in RESIZES:
        raise ValueError(f"resize={resize}: must be one of {', '.join(RESIZES)}")
    if len(background) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in background):
        raise ValueError(f"background={background}: must be three numbers from 0 to 255: red, green, blue")


def fit(images: Tensor, size: int, resize: str = "crop", background: tuple[int, ...] = WHITE) -> Tensor:
    """Pictures of any shape as squares: uint8 (..., 3, H, W) -> uint8 (..., 3, size, size).

    resize: "crop" keeps the square in the middle, "pad" keeps everything and fills up with `background` (red, green,
    blue), "squash" changes the aspect ratio. Bicubic and antialiased, in PyTorch's integer arithmetic, which equals
    Pillow's; a square of the right size is returned as it is.
    The one function that training, evaluation and prediction make pictures square with.
    """
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
        height = width = side
    rows, columns = size, size
    if resize == "pad":
        rows, columns = (max(1, round(size * side / max(height, width))) for side in (height, width))
    if (height, width) != (rows, columns):
        batch = images.reshape(-1, *images.shape[-3:])
        # PyTorch has integer arithmetic on the CPU alone
        resized = F.interpolate(batch.cpu(), (rows, columns), mode="bicubic", antialias=True).to(images.device)
        images = resized.reshape(*images.shape[:-2], rows, columns)
    if (rows, columns) == (size, size):
        return images
    canvas = images.new_tensor(background).view(3, 1, 1).expand(*images.shape[:-2], size, size).clone()
    top, left = (size - rows) // 2, (size - columns) // 2
    canvas[..., top : top + rows, left : left + columns] = images
    return canvas
