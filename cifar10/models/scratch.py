"""Networks trained from scratch: any class of `cifar10.models.networks` as a LightningModule."""

import importlib
import inspect
import re

import torch
from torch import nn

from cifar10.data.preprocessing import Preprocessing
from cifar10.models import networks
from cifar10.models.classifier import ImageClassifier

KERAS_CNN = {"_target_": "cifar10.models.networks.cnn.CNN"}


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


def build_network(network: dict[str, object], num_classes: int, image_size: int) -> nn.Module:
    """The network described by `_target_` and keyword arguments; ValueError naming an argument that it rejects."""
    settings = dict(network)
    target = find_network(settings.pop("_target_", None))
    given = {"num_classes": num_classes, "image_size": image_size}
    given = {name: value for name, value in given.items() if name in inspect.signature(target).parameters}
    try:
        return target(**settings, **given)
    except ValueError as error:
        argument = re.match(r"(\w+)=", str(error))
        owner = "network: " if argument is None else "" if argument[1] in given else "network."
        raise ValueError(f"{owner}{error}") from error


def find_network(name: object) -> type[nn.Module]:
    """The network class with this name. A checkpoint may come from anyone: no module elsewhere is imported for it."""
    module, _, last = str(name).rpartition(".")
    found = None
    if re.fullmatch(rf"{re.escape(networks.__name__)}(\.\w+)+", module):
        try:
            found = getattr(importlib.import_module(module), last, None)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith(networks.__name__):  # the network's own file needs a missing package
                raise
    if not (isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module):
        raise ValueError(
            f"network._target_={name}: must name an nn.Module defined in a file of cifar10/models/networks/,"
            f" such as {KERAS_CNN['_target_']}"
        )
    return found
