"""Which images train and which validate: stratified, seeded, and the same for every model and every run."""

import math

import numpy as np

from cifar10.errors import UserError


def split(
    labels: np.ndarray, train_size: int | float | None, val_size: int | float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stratified, disjoint indices for training and validation.

    Raises UserError for a size that is not there.
    """
    total = len(labels)
    val = size_of(val_size, total, "data.val_size", "training images")
    if val == total:
        raise UserError(f"data.val_size={val_size}: leaves none of the {total:,} images for training")
    train = left = total - val
    if train_size is not None:
        train = size_of(train_size, left, "data.train_size", f"images beside the {val:,} of validation")
    order = stratified_order(labels, seed)
    return order[val : val + train], order[:val]


def size_of(size: int | float, total: int, key: str, of_what: str) -> int:
    """A number of images from a number or, if a float, a fraction of `total`."""
    count = round(size * total) if isinstance(size, float) and math.isfinite(size) else size
    if not 1 <= count <= total:
        raise UserError(f"{key}={size}: must be 1 to {total:,} {of_what}, or a fraction of them")
    return count


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of which every prefix holds each class in its overall proportion, to within one image.

    With classes of unequal size, to within 0.5 + C / 2 times the class's share, for C classes.
    RandomState, because NumPy has frozen its stream: a split is the same for ever.
    """
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)[labels[by_class]]
    rank = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return by_class[np.argsort((rank + 0.5) / counts, kind="stable")]
