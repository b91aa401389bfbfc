"""A trained network in use: the one function from pictures to probabilities of evaluate, predict, export and serve."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cifar10.data.preprocessing import Preprocessing


class Predictor(nn.Module):
    """Preprocessing, network and temperature in one module, in eval mode.

    network: preprocessed images, float32 (B, 3, S, S), to logits (B, C). class_names: in the order of the logits.
    temperature: divides the logits (Guo et al. 2017, section 4.2); 1 leaves them as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        temperature: float = 1.0,
    ):
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        self.class_names, self.temperature = tuple(class_names), temperature
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) of any size -> probabilities, float32 (B, C)."""
        return (self.logits(images) / self.temperature).softmax(1)

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) of any size -> float32 (B, C), before the temperature; ValueError for anything else."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"{images.dtype} {tuple(images.shape)}: must be uint8 (B, 3, H, W), from 0 to 255")
        return self.network(self.preprocessing(images)).float()
