"""From a network's name and arguments, as a recipe or a checkpoint has them, to the network."""

import importlib
import inspect
import re
from typing import Any

from torch import nn

PACKAGE = "cifar10.models.networks"
KERAS_CNN: dict[str, object] = {"_target_": f"{PACKAGE}.cnn.CNN"}


def build_network(network: dict[str, object], num_classes: int, image_size: int) -> nn.Module:
    """The network described by `_target_` and keyword arguments; ValueError naming an argument that it rejects."""
    settings = dict(network)
    target: Any = find_network(settings.pop("_target_", None))
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
    if re.fullmatch(rf"{re.escape(PACKAGE)}(\.\w+)+", module):
        try:
            found = getattr(importlib.import_module(module), last, None)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith(PACKAGE):  # the network's own file needs a missing package
                raise
    if not (isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module):
        raise ValueError(
            f"network._target_={name}: must name an nn.Module defined in a file of cifar10/models/networks/,"
            f" such as {KERAS_CNN['_target_']}"
        )
    return found
