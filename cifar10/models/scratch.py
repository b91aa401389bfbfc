"""Networks trained from scratch: any class of `cifar10.models.networks` as a LightningModule."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError
from cifar10.models.classifier import ImageClassifier
from cifar10.models.networks.build import KERAS_CNN, build_network

STARTING_IMAGES = 5000


class ScratchClassifier(ImageClassifier):
    """A network trained from scratch on pixels / 255; the defaults are the Keras notebook's network and recipe.

    network: `_target_`, the name of a class in `cifar10.models.networks`, and its own keyword arguments. The class is
    also given `num_classes` and, if it takes it, `image_size`.
    image_size: side of the input in pixels; None: 32.
    head_lr, bias_lr: learning rates of the matrices and of the vectors, such as those of batch normalisation; None: lr,
    which the convolutions have.
    A network with a method `start_from` is given 5,000 training images, preprocessed, in batches, before it trains.
    """

    def __init__(
        self,
        class_names: list[str],
        network: dict[str, object] = KERAS_CNN,
        image_size: int | None = None,
        lr: float = 1e-3,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        schedule: str = "constant",
        warmup: float = 0.0,
        class_weights: str | list[float] | None = None,
        head_lr: float | None = None,
        bias_lr: float | None = None,
    ):
        image_size = 32 if image_size is None else image_size
        preprocessing = Preprocessing(image_size)
        rates = (lr, optimizer, weight_decay, label_smoothing, schedule, warmup)
        super().__init__(class_names, preprocessing, *rates, class_weights)
        for name, rate in (("head_lr", head_lr), ("bias_lr", bias_lr)):
            if rate is not None and not 0 < rate < math.inf:
                raise ValueError(f"{name}={rate}: must be a positive number, or null for lr")
        self.save_hyperparameters(logger=False)
        self.head_lr, self.bias_lr = head_lr, bias_lr
        self.has_seen_images = False  # a network that starts from some, see `setup`
        built = build_network(network, num_classes=len(class_names), image_size=image_size)
        self.network = built.to(memory_format=torch.channels_last)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        start_from: Any = getattr(self.network, "start_from", None)
        if stage == "fit" and start_from and not self.has_seen_images:
            start_from(self.starting_images())
            self.has_seen_images = True

    def starting_images(self) -> Iterator[Tensor]:
        """Batches of training images as the network's input; UserError, once it is asked, if they cannot be had."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "indices"):
            raise UserError(f"{type(self.network).__name__} starts from training images: use CIFAR10DataModule")
        images, some = datamodule.loaded["train"][0], datamodule.indices["train"][:STARTING_IMAGES]
        for part in some.split(100):
            yield self.preprocessing(images[part].to(self.device))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        self.has_seen_images = True

    def parameter_groups(self) -> dict[str, Iterable[tuple[str, nn.Parameter]]]:
        if self.head_lr is None and self.bias_lr is None:
            return super().parameter_groups()
        named = list(self.named_parameters())
        ranks = {"filters": range(3, 9), "head": range(2, 3), "biases": range(2)}
        return {group: [(name, p) for name, p in named if p.ndim in rank] for group, rank in ranks.items()}

    def peak_rates(self) -> dict[str, float]:
        own = {"head": self.head_lr, "biases": self.bias_lr}
        return {group: own.get(group) or self.lr for group in self.parameter_groups()}
