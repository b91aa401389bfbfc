"""The Keras notebook's CNN."""

from typing import cast

import torch
from torch import Tensor, nn


class CNN(nn.Module):
    """Blocks of [3x3 convolution without padding, ReLU, 2x2 max-pool], a hidden dense layer, dropout, logits.

    The network of the Keras notebook that this project replaces, with Keras' initialisation (uniform weights, Glorot &
    Bengio 2010, section 4.2.1; zero biases). At 32 pixels, widths 32, 64, 128 and 10 classes it has 160,202 parameters.
    Input (B, 3, image_size, image_size), output logits (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: int = 32,
        widths: tuple[int, ...] = (32, 64, 128),
        hidden: int = 128,
        dropout: float = 0.5,
    ):
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={list(widths)}: must be one whole number from 1 up per block")
        if hidden < 1:
            raise ValueError(f"hidden={hidden}: must be at least 1")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: must lie in [0, 1]")
        if image_size < (smallest := smallest_side(len(widths))):
            raise ValueError(f"image_size={image_size}: {len(widths)} blocks need at least {smallest} pixels")
        side, channels, layers = image_size, 3, []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3), nn.ReLU(), nn.MaxPool2d(2)]
            side, channels = (side - 2) // 2, width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(self, images: Tensor) -> Tensor:
        # An explicit NCHW flatten: the dense weights mean the same whatever the memory format of the images.
        return self.classifier(self.features(images).contiguous(memory_format=torch.contiguous_format))


def smallest_side(blocks: int) -> int:
    """The smallest image, in pixels, that leaves one pixel after `blocks` blocks."""
    side = 1
    for _ in range(blocks):
        side = 2 * side + 2
    return side
