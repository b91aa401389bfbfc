"""Cut a box out of every image and resize it to the network's size, the whole batch at once.

The boxes differ, so neither `torch.nn.functional.interpolate` nor torchvision can do it for a batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_and_resize(images: Tensor, boxes: Tensor, mirrored: Tensor, size: int, interpolation: str) -> Tensor:
    """Resize a box of each image to (size, size), antialiased, and mirror it left to right where asked.

    images: (B, C, H, W), any dtype. boxes: long (B, 4), top, left, height and width in pixels. mirrored: bool (B,).
    interpolation: "bicubic", or else bilinear. Returns float32 (B, C, size, size): what torchvision's `resized_crop`
    gives, but not rounded, nor clipped to the range of pixels.
    """
    height, width = images.shape[-2:]
    rows = taps(boxes[:, 0], boxes[:, 2], height, size, interpolation)
    columns = taps(boxes[:, 1], boxes[:, 3], width, size, interpolation)
    columns = (torch.where(mirrored.view(-1, 1, 1), each.flip(1), each) for each in columns)
    shrunk = weighted_rows(images.float(), *rows)  # (B, C, size, W)
    return weighted_rows(shrunk.transpose(2, 3).contiguous(), *columns).transpose(2, 3).contiguous()


def taps(start: Tensor, length: Tensor, side: int, size: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Which pixels of a side of `side` pixels make each of `size` new ones, and with what weights: both (B, size, K).

    start, length: long (B,), the part of the side to resize. The weights are those of `interpolate(antialias=True)` and
    of Pillow: the kernel is as wide as a new pixel, and is cut off at the ends of the part.
    """
    radius = 2 if interpolation == "bicubic" else 1
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    scale = length / size
    stretch = scale.clamp(min=1)
    centre = (torch.arange(size, device=start.device).view(1, -1, 1) + 0.5) * scale
    first = (centre - radius * stretch - 0.5).ceil().long()
    most = math.ceil(2 * radius * max(1, side / size))
    pixel = first + torch.arange(most, device=start.device)
    distance = ((pixel + 0.5 - centre) / stretch).abs()
    weight = (cubic(distance) if interpolation == "bicubic" else 1 - distance) * (distance < radius)
    weight = weight * ((pixel >= 0) & (pixel < length))
    return (start + pixel).clamp(0, side - 1), weight / weight.sum(2, keepdim=True)


def cubic(x: Tensor) -> Tensor:
    """The cubic kernel with a = -0.5 (Keys 1981) at a distance x from 0 to 2."""
    return torch.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)


def weighted_rows(images: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of each image's rows: (B, C, H, W), (B, size, K), (B, size, K) -> (B, C, size, W).

    An embedding bag is such a sum. With few taps it is five times faster than a product with a matrix of mostly zeros.
    """
    batch, channels, height, width = images.shape
    first = torch.arange(0, batch * channels * height, height, device=images.device).view(batch, channels, 1, 1)
    index = (first + index[:, None]).flatten(0, 2)  # in the rows of all images, one below the other
    weight = weight[:, None].expand(-1, channels, -1, -1).flatten(0, 2)
    sums = F.embedding_bag(index, images.flatten(0, 2), per_sample_weights=weight, mode="sum")
    return sums.view(batch, channels, -1, width)
