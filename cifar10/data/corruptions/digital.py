"""The digital corruptions: contrast, elastic transform and, with Pillow, pixelate and JPEG compression."""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from cifar10.data.corruptions.pixels import Rngs, truncate


def contrast(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Move each channel towards its mean over the image."""
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    levels = images.mul(255).round()  # the sum of integers does not depend on their order
    mean = levels.mean((2, 3), keepdim=True) / 255
    return (images - mean) * kept + mean


def elastic_transform(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """A random affine map, then a displacement of each pixel by smoothed noise, both linearly interpolated.

    strength: of the displacement before it is smoothed by `sigma`. shift: how far the corners of the triangle that
    defines the affine map move at most. All in pixels.
    """
    strength, sigma, shift = (
        (0, 0, 2.56),
        (1.6, 6.4, 2.24),
        (2.56, 1.92, 1.92),
        (3.2, 1.28, 1.6),
        (3.2, 0.96, 0.96),
    )[severity - 1]
    height, width = images.shape[-2:]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)  # (H, W, 2) of x, y
    images = sample(images, affine_grid(grid, shift, rngs), mirror=True)
    if not strength:
        return images
    noise = np.stack([rng.uniform(-1, 1, (2, height, width)) for rng in rngs])
    down, across = (
        gaussian_filter1d(np.eye(side), sigma, axis=0, mode="reflect", truncate=3) for side in (height, width)
    )
    displaced = grid + strength * (down @ noise @ across.T).transpose(0, 2, 3, 1)
    return sample(images, displaced, mirror=False)


def pixelate(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Resize to a fraction of the size and back, both with a box filter."""
    fraction = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]

    def resize(image: Image.Image) -> Image.Image:
        small = [int(side * fraction) for side in image.size]
        return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)

    return by_pil(images, resize)


def jpeg_compression(images: Tensor, severity: int, rngs: Rngs) -> Tensor:
    """Encode as JPEG and decode."""
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def compress(image: Image.Image) -> Image.Image:
        image.save(file := io.BytesIO(), "JPEG", quality=quality)
        return Image.open(file)

    return by_pil(images, compress)


def affine_grid(grid: np.ndarray, shift: float, rngs: Rngs) -> np.ndarray:
    """The source (x, y) of each pixel, (B, H, W, 2), if three points move by up to `shift` along each axis."""
    height, width = grid.shape[:2]
    triangle = np.array([width // 2, height // 2]) + min(height, width) // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = triangle + np.stack([rng.uniform(-shift, shift, (3, 2)) for rng in rngs])
    back = np.linalg.solve(np.insert(moved, 2, 1, axis=-1), triangle.astype(float))  # (B, 3, 2): from moved to triangle
    return (np.insert(grid, 2, 1, axis=-1).reshape(-1, 3) @ back).reshape(len(rngs), height, width, 2)


def sample(images: Tensor, where: np.ndarray, mirror: bool) -> Tensor:
    """Images linearly interpolated at the points (B, H, W, 2): x and y in pixels.

    Beyond the border images are reflected about the centre of the last pixel if `mirror` (OpenCV's REFLECT_101, SciPy's
    "mirror", grid_sample's align_corners=True), else about its outer edge (SciPy's "reflect").
    """
    sides = np.array([images.shape[-1], images.shape[-2]])
    scaled = 2 * where / (sides - 1) - 1 if mirror else (2 * where + 1) / sides - 1
    points = torch.from_numpy(scaled).to(images)
    return F.grid_sample(images, points, padding_mode="reflection", align_corners=mirror)


def by_pil(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    pixels = truncate(images).permute(0, 2, 3, 1).cpu().numpy()
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).to(images) / 255
