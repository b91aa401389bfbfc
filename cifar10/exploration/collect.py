"""From a data module to plain arrays: everything that exploring looks at."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.picture_data import PictureData
from cifar10.errors import UserError
from cifar10.progress import Progress

log = logging.getLogger("explore")


@dataclass
class Collection:
    """The pictures of all splits, in a fixed order.

    read: places (n,) -> uint8 (n, 3, S, S). labels: int (N,). splits: str (N,), "train", "val" or "test".
    files: a name for each, unique. sizes: width and height before anything was resized, int (N, 2).
    digests: of the content, str (N,), "" where unknown. unreadable: the reason by file; these are in no array.
    """

    name: str
    class_names: tuple[str, ...]
    read: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray
    splits: np.ndarray
    files: Sequence[str]
    sizes: np.ndarray
    digests: np.ndarray
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


def collect(datamodule: CIFAR10DataModule) -> Collection:
    """All pictures that take part in a split, test pictures included."""
    if isinstance(datamodule.data, PictureData):
        datamodule.data.max_unreadable = 1.0  # they are what one wants to know
    datamodule.prepare_data()
    datamodule.setup("fit")
    splits = ["train", "val"]
    try:
        datamodule.setup("test")
        splits.append("test")
    except UserError as error:
        log.info(f"no test pictures: {error}")
    parts = [datamodule.data.part(split) for split in splits]
    starts = np.cumsum([0, *map(len, parts)])

    def read(places: np.ndarray) -> np.ndarray:
        which = np.searchsorted(starts, places, side="right") - 1
        found = np.empty((len(places), *parts[0].images.shape[1:]), np.uint8)
        for number in np.unique(which):
            found[which == number] = parts[number][places[which == number] - starts[number]].numpy()
        return found

    names = [part.files or names_of(split, part.indices) for split, part in zip(splits, parts, strict=True)]
    collection = Collection(
        name=datamodule.source.name,
        class_names=tuple(datamodule.class_names),
        read=read,
        labels=np.concatenate([part.labels.numpy() for part in parts]),
        splits=np.repeat(splits, list(map(len, parts))),
        files=[name for of_part in names for name in of_part],
        sizes=np.full((starts[-1], 2), parts[0].images.shape[-2:][::-1]),
        digests=np.array([]),
    )
    if isinstance(datamodule.data, PictureData):
        store, files = datamodule.data.store, datamodule.data.pictures.files
        known = {files[index]: reason for index, reason in store.errors.items()}
        sizes = store.sizes[np.concatenate([part.indices.numpy() for part in parts])]
        digests = np.concatenate([part.digests for part in parts if part.digests is not None])
        return replace(collection, digests=digests, sizes=sizes, unreadable=known)
    return replace(collection, digests=digests_of(read, int(starts[-1])))


def names_of(split: str, indices: torch.Tensor) -> list[str]:
    """Names of pictures that come as arrays: `train 123` is the source's; of validation too, which is drawn from it."""
    return [f"{'test' if split == 'test' else 'train'} {index}" for index in indices.tolist()]


def digests_of(read: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """Digests of the pixels, for pictures that come as arrays."""
    digests = []
    with Progress(count, "looking for equal pictures") as progress:
        for start in range(0, count, 256):
            images = read(np.arange(start, min(start + 256, count)))
            digests += [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
            progress.update(len(images))
    return np.array(digests)


def sample(labels: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Places of at most this many pictures, ascending, with each class's share of all; larger samples contain it."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # shuffled within each class
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = rank / counts[labels[order]]  # 0 for the first of each class: none is left out
    return np.sort(order[np.argsort(share, kind="stable")[:most]])
