"""Brightness, contrast, saturation and hue, each image with its own: one product with a matrix for the whole batch."""

import math

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
QUARTER_TURN = (  # of the hue, from red towards green: in YIQ, as a matrix for red, green and blue
    (-0.1677, -0.3293, 0.4970),
    (0.3281, -0.0355, -0.2926),
    (-1.2497, 1.0465, 0.2032),
)


def jitter(images: Tensor, draws: Tensor, strength: float, hue: float) -> Tensor:
    """Colour jitter: (B, 3, H, W) pixels from 0 to 255 -> float of the same shape.

    draws: (B, 4), uniform in [0, 1). Brightness, contrast and saturation are multiplied by factors from 1 - strength to
    1 + strength, the hue is turned by up to `hue` of the circle either way.
    """
    around = 2 * draws - 1
    brightness, contrast, saturation = (1 + strength * around[:, :3]).unbind(1)
    return recolour(images, brightness, contrast, saturation, hue * around[:, 3])


def recolour(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Change colours of (B, 3, H, W) pixels from 0 to 255 -> float of the same shape and range.

    brightness, contrast, saturation: factors (B,), as of torchvision's `adjust_` functions, which give the same in
    whatever order they are called, but for what they clip in between. hue: (B,), in turns of the circle; unlike a turn
    in HSV it keeps the brightness.
    """
    pixels = images.float().flatten(2)
    brightness, contrast, saturation, hue = (
        values.view(-1, 1, 1) for values in (brightness, contrast, saturation, 2 * math.pi * hue)
    )
    grey = pixels.new_tensor(GREY).expand(3, 3)
    colour = torch.eye(3, device=pixels.device) - grey  # what is left of red, green and blue without their brightness
    matrix = grey + saturation * (hue.cos() * colour + hue.sin() * pixels.new_tensor(QUARTER_TURN))
    offset = brightness * (1 - contrast) * (pixels.mean(2, keepdim=True) * grey[0, :, None]).sum(1, keepdim=True)
    return torch.baddbmm(offset, brightness * contrast * matrix, pixels).clamp_(0, 255).view_as(images)
