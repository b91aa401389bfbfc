"""Image classification on CIFAR-10: a CNN from scratch beside a pretrained backbone fine-tuned in two phases."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar10.inference.loading import Model, Prediction, load

__all__ = ["Model", "Prediction", "load"]


def __getattr__(name: str) -> object:  # commands import this package before it is known whether they need PyTorch
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from cifar10.inference import loading

    return getattr(loading, name)
