"""What a pretrained backbone makes of each picture, for the map and for label errors."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from cifar10.errors import UserError
from cifar10.models.backbones import find_config
from cifar10.models.efficientnet import EfficientNet
from cifar10.progress import Progress

log = logging.getLogger("explore")

BATCH = 64
COMPONENTS = 50  # of the features, for the map and TensorBoard: their text form would be 80 MB otherwise


def load_backbone(name: str, pretrained: bool, weights: str | None, image_size: int) -> EfficientNet | None:
    """The backbone with its preprocessing; None, and a line in the log, if its weights cannot be downloaded.

    Raises UserError for a setting that is wrong.
    """
    try:
        find_config(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    try:
        model = EfficientNet(["", ""], name, pretrained, weights, image_size)
    except ValueError as error:
        if weights is None and pretrained and str(error).startswith("backbone="):
            log.warning(f"no map and no label errors: the weights of {name} could not be downloaded; weights=FILE")
            return None
        raise UserError(str(error)) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def compute(model: EfficientNet, read: Callable[[np.ndarray], np.ndarray], places: np.ndarray) -> np.ndarray:
    """Pooled features of the pictures at these places, float32 (n, D); read: places -> uint8 (n, 3, S, S)."""
    parts = []
    with torch.inference_mode(), Progress(len(places), f"features of {model.hparams['backbone']}") as progress:
        for few in np.array_split(places, -(-len(places) // BATCH)):
            images = torch.from_numpy(read(few)).to(model.device)
            parts.append(model.backbone(model.preprocessing(images)).float().cpu())
            progress.update(len(few))
    return torch.cat(parts).numpy()


def reduce(features: np.ndarray) -> np.ndarray:
    """The principal components that vary most, float32 (n, at most COMPONENTS)."""
    return PCA(min(COMPONENTS, *features.shape), random_state=0).fit_transform(features).astype(np.float32)


def layout(components: np.ndarray) -> np.ndarray:
    """Places (n, 2) in [0, 1] on a map, similar pictures as neighbours (t-SNE, van der Maaten & Hinton 2008)."""
    log.info(f"drawing a map of {len(components):,} pictures")  # ten seconds for 5,000, and no way to watch it
    perplexity = min(30, (len(components) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=500).fit_transform(components)
    low, high = found.min(0), found.max(0)
    return (found - low) / np.maximum(high - low, 1e-9)
