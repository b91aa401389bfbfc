"""Networks trained from scratch: any class of `cifar10.models.networks` as a LightningModule."""

import torch

from cifar10.data.preprocessing import Preprocessing
from cifar10.models.classifier import ImageClassifier
from cifar10.models.networks.build import KERAS_CNN, build_network


class ScratchClassifier(ImageClassifier):
    """A network trained from scratch on pixels / 255; the defaults are the Keras notebook's network and recipe.

    network: `_target_`, the name of a class in `cifar10.models.networks`, and its own keyword arguments. The class is
    also given `num_classes` and, if it takes it, `image_size`.
    image_size: side of the input in pixels; None: 32.
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
    ):
        image_size = 32 if image_size is None else image_size
        preprocessing = Preprocessing(image_size)
        rates = (lr, optimizer, weight_decay, label_smoothing, schedule, warmup)
        super().__init__(class_names, preprocessing, *rates, class_weights)
        self.save_hyperparameters(logger=False)
        built = build_network(network, num_classes=len(class_names), image_size=image_size)
        self.network = built.to(memory_format=torch.channels_last)
