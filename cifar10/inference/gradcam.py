"""Grad-CAM: which parts of a picture speak for a class (Selvaraju et al. 2017, section 3)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cifar10.errors import UserError
from cifar10.models.predictor import Predictor

SMOOTHING = (nn.Identity, nn.Dropout, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)  # add no features
SMALLEST = 224  # px of an overlay: 32 px would be a stamp


def heat(predictor: Predictor, image: Tensor, index: int) -> np.ndarray:
    """How much each pixel of an image, uint8 (3, H, W), speaks for class `index`: float32 (H, W) from 0 to 1.

    Taken from the network's last feature map, so it is as coarse as that. All zeros where nothing speaks for the class.
    Raises UserError for a network without feature maps, as a transformer, and without the package captum.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise UserError("explanations need another package: pip install 'cifar10[explain]'") from None
    with torch.inference_mode(False), torch.enable_grad():
        inputs = predictor.preprocessing(image[None].clone()).requires_grad_()
        found: Any = LayerGradCam(predictor.network, last_feature_map(predictor, inputs)).attribute(
            inputs, target=index, relu_attributions=True
        )
    size = tuple(image.shape[-2:])
    enlarged = F.interpolate(found.detach().float(), size, mode="bilinear", align_corners=False)[0, 0]
    return (enlarged / enlarged.max().clamp(min=1e-12)).cpu().numpy()


def last_feature_map(predictor: Predictor, inputs: Tensor) -> nn.Module:
    """The last layer, poolings aside, whose output still has a height and a width."""
    found: list[nn.Module] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            found.append(layer)

    layers = [layer for layer in predictor.network.modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers if not isinstance(layer, SMOOTHING)]
    try:
        with torch.no_grad():
            predictor.network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError("this network has no feature maps, which Grad-CAM explains; use explain=false")
    return found[-1]


def overlay(image: Tensor, heat: np.ndarray) -> Image.Image:
    """The picture, uint8 (3, H, W), with the heat (H, W) over it; small ones are enlarged."""
    from matplotlib import colormaps  # slow to import

    height, width = heat.shape
    times = max(1, -(-SMALLEST // min(height, width)))
    size = (width * times, height * times)
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).resize(size, Image.Resampling.NEAREST)
    colours = Image.fromarray(colormaps["inferno"](heat, bytes=True)[..., :3]).resize(size, Image.Resampling.BICUBIC)
    opacity = Image.fromarray((heat * 180).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.composite(colours, picture, opacity)
