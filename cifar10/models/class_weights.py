"""Weights of the training loss, so that rare classes count as much as frequent ones."""

import math
from typing import Any

import torch
from torch import Tensor

from cifar10.errors import UserError


def check_class_weights(class_weights: object, classes: int) -> None:
    """ValueError unless it is "balanced", None, or a finite number from 0 up for each class."""
    if class_weights in (None, "balanced"):
        return
    numbers = class_weights if isinstance(class_weights, list | tuple) else [-1]
    if len(numbers) != classes or not all(0 <= number < math.inf for number in numbers):
        raise ValueError(
            f"class_weights={class_weights}: must be balanced, or a number from 0 up for each of the {classes} classes"
        )


def balanced_weights(counts: Tensor) -> Tensor:
    """N / (C n_c) for classes of n_c images, N in all (King & Zeng 2001; scikit-learn's "balanced"): float32.

    C counts the classes with images, so that the weights of the images are 1 on average; another class has 0.
    """
    weights = counts.sum() / (counts.count_nonzero() * counts)
    return torch.where(counts > 0, weights, 0.0)


def weights_of(datamodule: Any) -> Tensor:
    """Balanced weights for the training images of a data module; UserError if it cannot count them."""
    if not hasattr(datamodule, "class_counts"):
        raise UserError(
            "model.class_weights=balanced: needs a data module with class_counts; give a number for each class instead"
        )
    return balanced_weights(datamodule.class_counts("train"))
