"""Which images train and which validate: stratified, seeded, the same for every model and run."""

import math

import numpy as np


def split(
    labels: np.ndarray, train_size: int | float | None, val_size: int | float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stratified, disjoint indices for training and validation; None trains on all that validation leaves.

    Sizes are numbers of images or, as floats, fractions: of all images for validation, of those it leaves for training.
    A validation size of 0 leaves all of them. Raises ValueError for a size out of range.
    """
    total = len(labels)
    val = 0 if val_size == 0 else size_of("val_size", val_size, total, total - 1, "training images")
    train = left = total - val
    if train_size is not None:
        train = size_of("train_size", train_size, left, left, "images that validation leaves")
    order = stratified_order(labels, seed)
    return order[val : val + train], order[:val]


def size_of(name: str, size: int | float, total: int, most: int, what: str) -> int:
    """A number of images, at most `most`, from a number or, if a float, a fraction of `total`."""
    count = round(size * total) if isinstance(size, float) and math.isfinite(size) else size
    if count == 0 < size:
        raise ValueError(f"{name}={size}: too few pictures, as that is none of {total:,} {what}; add some, or raise it")
    if not 1 <= count <= most:
        raise ValueError(f"{name}={size}: must be 1 to {most:,} of the {total:,} {what}, or a fraction of them")
    return int(count)


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A permutation in which every prefix has each class in its overall proportion, to within one image.

    For C classes of unequal size: to within 0.5 + C / 2 times the class's proportion.
    """
    shuffled = np.random.RandomState(seed).permutation(len(labels))  # its stream never changes, so nor does a split
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)[labels[by_class]]
    rank = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return by_class[np.argsort((rank + 0.5) / counts, kind="stable")]
