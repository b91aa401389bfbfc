"""Encoded pictures that a source has listed but not read: files, or the bytes of a table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Pictures:
    """The pictures of a source, in a fixed order, before any is opened.

    files: a name for each, its path relative to the source's root with "/" between folders; the split of a run and
    every report name pictures by it. labels: int64 (N,), in the order of the source's class_names. splits: str (N,),
    "train", "val", "test", or "" where the source does not say, so that a split is drawn.
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
