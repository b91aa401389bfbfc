"""Three blocks of convolutions and max-pooling, built to learn CIFAR-10 in few epochs."""

import itertools
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU, "relu": nn.ReLU}
PATCH = 2  # side in pixels of what the whitening layer sees


class FastCNN(nn.Module):
    """Whitening layer, blocks of convolutions and one max-pool, global max-pool, logits without bias.

    The network of airbench94 (Jordan 2024, arXiv 2404.00498, section 3), which descends from Page's ResNet-9 (2019)
    and from tysam-code's hlb-CIFAR10 (2023). Each part of it can be left out:
    widths: channels of each block. convolutions: 3x3 convolutions of a block, of which the first is followed by the
    pool; with three or more, all but the first have a connection around them, as in airbench96.
    whitening: the first layer gives the principal components of 2 x 2 patches of training images, each divided by its
    size and with both signs, see `start_from`; it is not trained but for its bias (section 3.2). Else it is a plain
    convolution of the same shape.
    identity_init: convolutions first hand on as many of their inputs as they can (section 3.3, Zagoruyko & Komodakis
    2017). learn_scale: train the factors of batch normalisation, not its summands alone, as section 3.1 does.
    activation: gelu (Hendrycks & Gimpel 2016), silu, relu. logit_scale: factor of the logits (section 3.1, Page 2019).
    Input (B, 3, S, S) of any S that leaves a pixel after the pools: 9 and more for three blocks. Output logits
    (B, num_classes). Raises ValueError for a setting out of range.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: int = 32,
        widths: tuple[int, ...] = (64, 256, 256),
        convolutions: int = 2,
        whitening: bool = True,
        identity_init: bool = True,
        learn_scale: bool = False,
        activation: str = "gelu",
        logit_scale: float = 1 / 16,
    ):
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={list(widths)}: must be one whole number from 1 up per block")
        if convolutions < 1:
            raise ValueError(f"convolutions={convolutions}: must be at least 1 per block")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        if not 0 < logit_scale < float("inf"):
            raise ValueError(f"logit_scale={logit_scale}: must be a positive number")
        if image_size < (smallest := PATCH - 1 + 2 ** len(widths)):
            raise ValueError(f"image_size={image_size}: {len(widths)} blocks need at least {smallest} pixels")
        components = 3 * PATCH**2
        self.whitening, self.logit_scale = whitening, logit_scale
        self.whiten = nn.Conv2d(3, 2 * components, PATCH)
        self.whiten.weight.requires_grad_(not whitening)
        self.activation = ACTIVATIONS[activation]()
        inputs = (2 * components, *widths)
        self.blocks = nn.Sequential(
            *(
                Block(before, width, convolutions, identity_init, learn_scale, self.activation)
                for before, width in itertools.pairwise(inputs)
            )
        )
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        found = self.blocks(self.activation(self.whiten(images)))
        return self.head(found.amax((2, 3))) * self.logit_scale

    @torch.no_grad()
    def start_from(self, batches: Iterable[Tensor]) -> None:
        """Set the first layer by batches (B, 3, H, W) of training images, preprocessed as the network's input.

        With eigenvectors V (as rows) and eigenvalues l of the mean of p p^T over all patches p, the components are
        V / sqrt(l + eps). Unlike airbench's images, ours keep their mean: it is a part of the first component.
        """
        if not self.whitening:
            return
        moments, count = torch.zeros((), dtype=torch.float64), 0
        for images in batches:
            patches = F.unfold(images.double(), PATCH).transpose(1, 2).flatten(0, 1)  # (B * positions, 3 * PATCH^2)
            moments, count = patches.T @ patches + moments.to(patches.device), count + len(patches)
        values, vectors = torch.linalg.eigh(moments / count)
        components = (vectors.T / (values[:, None] + 5e-4).sqrt()).view(-1, 3, PATCH, PATCH)
        self.whiten.weight.copy_(torch.cat([components, -components]))
        nn.init.zeros_(cast(Tensor, self.whiten.bias))


class Block(nn.Module):
    """Convolution, max-pool, batch normalisation, activation; then further convolutions, normalised and activated."""

    def __init__(
        self, inputs: int, width: int, convolutions: int, identity_init: bool, learn_scale: bool, activation: nn.Module
    ):
        super().__init__()
        channels = (inputs, *[width] * convolutions)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=0.4) for _ in self.convolutions)
        self.activation = activation
        pairs: Any = zip(self.convolutions, self.norms, strict=True)
        for convolution, norm in pairs:
            norm.weight.requires_grad_(learn_scale)
            if identity_init:
                nn.init.dirac_(convolution.weight.data[: convolution.in_channels])

    def forward(self, images: Tensor) -> Tensor:
        first = F.max_pool2d(self.convolutions[0](images), 2)
        first = found = self.activation(self.norms[0](first))
        last = len(self.convolutions) - 1
        for number in range(1, last + 1):
            found = self.norms[number](self.convolutions[number](found))
            if number == last > 1:
                found = found + first
            found = self.activation(found)
        return found
