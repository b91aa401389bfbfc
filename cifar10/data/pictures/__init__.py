"""Pictures before and after decoding: what a source lists, and a part of what a data module has loaded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
UNUSED = "unused"  # in place of a split: the picture takes no part


@dataclass(frozen=True)
class Pictures:
    """The pictures of a source, in a fixed order, before any is opened.

    files: a name for each, its path relative to the source's root with "/" between folders; the split of a run and
    every report name pictures by it. labels: int64 (N,), in the order of the source's class_names. splits: str (N,),
    "train", "val", "test" or "unused", or "" where the source does not say, so that a split is drawn.
    read: the encoded picture at an index, as bytes or as the file's path; workers in other processes call it.
    fingerprint: hex digest that changes when a picture is added, removed, renamed or rewritten.
    skipped: what lies there and was passed over because it is no picture, in words with counts: {"text files": 3}.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    read: Callable[[int], bytes | Path]
    fingerprint: str
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Part:
    """The images of one split, in order, indexed like a tensor.

    images: all that are loaded, uint8 (N, 3, H, W), a tensor or a store. indices: int64 (M,), of this part's images in
    them. labels: int64 (M,). files, digests: a name and a digest of its content for each; None where images are arrays.
    """

    images: Tensor
    indices: Tensor
    labels: Tensor
    files: list[str] | None = None
    digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, places: Tensor | np.ndarray | slice) -> Tensor:
        return self.images[self.indices[places]]

    @property
    def device(self) -> torch.device:
        return self.images.device

    def stream(self, picks: Sequence[Tensor]) -> Iterator[Tensor]:
        return stream(self.images, [self.indices[places] for places in picks])


def stream(images: Tensor, picks: Sequence[Tensor]) -> Iterator[Tensor]:
    """The images at one array of indices after the other; a store reads ahead."""
    if isinstance(images, Tensor):
        return (images.index_select(0, places) for places in picks)  # which copies whole rows; an index, byte by byte
    return images.stream(picks)
