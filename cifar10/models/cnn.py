"""The CNN from scratch as a LightningModule."""

import torch

from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError
from cifar10.models.classifier import ImageClassifier, check_fraction
from cifar10.models.networks.cnn import CNN, smallest_side


class ScratchCNN(ImageClassifier):
    """`CNN` on pixels / 255, trained from scratch; the defaults are the Keras notebook's recipe."""

    def __init__(
        self,
        class_names: list[str],
        image_size: int | None = None,
        widths: list[int] | tuple[int, ...] = (32, 64, 128),
        hidden: int = 128,
        dropout: float = 0.5,
        lr: float = 1e-3,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        schedule: str = "constant",
        warmup: float = 0.0,
    ):
        check_fraction("dropout", dropout)
        if not widths or min(widths) < 1:
            raise UserError(f"model.widths={list(widths)}: must be whole numbers from 1 up, one a block")
        if hidden < 1:
            raise UserError(f"model.hidden={hidden}: at least one unit")
        image_size = 32 if image_size is None else image_size
        super().__init__(
            class_names, Preprocessing(image_size), lr, optimizer, weight_decay, label_smoothing, schedule, warmup
        )
        self.save_hyperparameters(logger=False)
        if image_size < (smallest := smallest_side(len(widths))):
            raise UserError(f"data.image_size={image_size}: {len(widths)} blocks need at least {smallest} pixels")
        network = CNN(len(class_names), image_size, tuple(widths), hidden, dropout)
        self.network = network.to(memory_format=torch.channels_last)
