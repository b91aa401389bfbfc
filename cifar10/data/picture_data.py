"""The pictures of a source as a run uses them: a store of them all, and the split of each, which the run remembers."""

import csv
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cifar10.data.loaded import LoadedData
from cifar10.data.pictures import SPLITS, UNUSED, Part
from cifar10.data.pictures.classes import describe
from cifar10.data.pictures.selection import check_readable, draw, duplicates, follow, leave_out_duplicates, named
from cifar10.data.pictures.tables import Row, read_table, write_table
from cifar10.data.preprocessing import Preprocessing
from cifar10.data.sources import PictureSource
from cifar10.data.split import stratified_order
from cifar10.data.store import open_store
from cifar10.errors import UserError
from cifar10.files import atomic_write
from cifar10.report.numbers import plural
from cifar10.shell import shown

log = logging.getLogger(__name__)


class PictureData(LoadedData):
    """A source of encoded pictures: which of them take part, and their store.

    val_size, train_size, split_seed: see `CIFAR10DataModule`. test_size: of the pictures, if the source has no split: a
    number or a fraction. max_unreadable: pictures of a class that may be left out because they cannot be read: a
    number, or a fraction of the class, of which at least one. duplicates: "drop" leaves a picture that is in several
    splits only in the last of train, val, test. cache: the folder of stores.
    Raises ValueError for a value out of range.
    """

    run: Any  # the RunFolder whose split is followed, if it has one

    def __init__(
        self,
        source: PictureSource,
        val_size: int | float,
        train_size: int | float | None,
        split_seed: int,
        test_size: int | float,
        max_unreadable: int | float,
        duplicates: str,
        cache: str | None,
    ):
        if not 0 <= max_unreadable < math.inf or (isinstance(max_unreadable, float) and max_unreadable > 1):
            raise ValueError(f"max_unreadable={max_unreadable}: must be a number from 0 up, or a fraction up to 1.0")
        super().__init__(source)
        self.sizes, self.split_seed = (test_size, val_size, train_size), split_seed
        self.max_unreadable, self.duplicates = max_unreadable, duplicates
        self.cache = None if cache is None else Path(cache).expanduser()
        self.run = None
        self.keeps = False  # in the run's folder, what is selected and what is left out

    def load(self, stage: str | None, preprocessing: Preprocessing, fit: dict[str, Any]) -> None:
        """Load the pictures of all splits, and log what is there; `preprocessing` says how they become squares.

        Raises UserError for pictures that are gone or cannot be read, and for a split that `stage` needs and that has
        none; ValueError for a size out of range.
        """
        training = stage in (None, "fit")
        if not self.loaded:
            self.select(preprocessing, training)
            images = self.store.images, self.numbered(torch.from_numpy(self.pictures.labels))
            self.loaded = {"train": images, "test": images}
            self.indices = {name: torch.from_numpy(self.members(name)) for name in SPLITS}
        validated = ("val",) if self.sizes[1] else ()
        for name in ("train", *validated) if training else ("test",) if stage in ("test", "predict") else ():
            if not len(self.indices[name]):
                raise UserError(f"{self.source.name}: has no pictures for the split {name}; add some")

    def select(self, preprocessing: Preprocessing, training: bool) -> None:
        """Set `pictures`, `store`, `splits` (see `cifar10.data.pictures.selection`) and `twice`.

        twice: groups of indices whose content is the same in several splits.
        """
        self.pictures, names = self.source.pictures(), self.source.class_names
        remembered = self.run.split if self.run is not None and self.run.split.exists() else None
        if remembered is not None:
            needed = ("train", "val", "test") if training else ("val", "test")
            splits = follow(self.pictures, names, read_table(remembered), needed)
        else:
            splits = draw(self.pictures, *self.sizes, self.split_seed)
        size, background = cast(int, preprocessing.store_size), preprocessing.background
        self.store = open_store(
            self.pictures, size, preprocessing.resize_mode, background, self.cache, self.source.name
        )
        lost = [index for index in self.store.errors if splits[index] != UNUSED]
        splits[lost] = UNUSED
        self.twice = duplicates(splits, self.store.digests)
        if self.duplicates == "drop":
            splits = leave_out_duplicates(splits, self.twice)
        self.splits = splits
        self.announce(lost, training)
        if self.keeps:
            self.write_problems()
        listed = shown(self.run.unreadable) if self.run is not None and self.keeps else ""
        unreadable = {index: self.store.errors[index] for index in lost}
        check_readable(self.pictures, names, unreadable, self.max_unreadable, listed)
        if self.keeps and remembered is None:
            self.write_split()

    def part(self, stage: str) -> Part:
        indices = self.indices[stage]
        files = [self.pictures.files[index] for index in indices]
        return replace(super().part(stage), files=files, digests=self.store.digests[indices.numpy()])

    def members(self, stage: str) -> np.ndarray:
        """Of the pictures in "train", "val" or "test"; in the order in which arrays of the same images would stand."""
        if stage == "test":
            return np.flatnonzero(self.splits == "test")
        members = np.flatnonzero(np.isin(self.splits, ("train", "val")))
        order = members[stratified_order(self.pictures.labels[members], self.split_seed)]
        return order[self.splits[order] == stage]

    def announce(self, lost: list[int], training: bool) -> None:
        """Log which pictures cannot be read and, for training, what there is of each class and split.

        lost: indices of those that would take part if they could be read.
        """
        if training:
            used = replace(self.pictures, splits=self.splits)
            log.info(f"{self.source.name}: " + "\n".join(describe(used, self.source.class_names)))
        if lost:
            reasons = [f"{self.pictures.files[index]}: {self.store.errors[index]}" for index in sorted(lost)]
            log.warning(f"{plural(len(lost), 'picture')} cannot be read, and left out: {named(reasons, '; ')}")
        if self.twice and training:
            one = " = ".join(self.pictures.files[index] for index in self.twice[0][:2])
            way = "" if self.duplicates == "drop" else "; data.duplicates=drop leaves them out of training"
            log.warning(f"{plural(len(self.twice), 'picture')} are in several splits ({one}){way}")

    def write_split(self) -> None:
        """Write split.csv: every picture, "unused" if it takes no part."""
        rows = zip(self.pictures.files, self.pictures.labels, self.splits, strict=True)
        names = self.source.class_names
        write_table(self.run.split, [Row(file, names[label], str(split)) for file, label, split in rows])

    def write_problems(self) -> None:
        """Write unreadable.csv and duplicates.csv, where there is something to list."""
        files, splits = self.pictures.files, self.splits
        unreadable = [(files[index], reason) for index, reason in sorted(self.store.errors.items())]
        twice = [(number, files[index], splits[index]) for number, group in enumerate(self.twice) for index in group]
        for path, header, lines in (
            (self.run.unreadable, ("file", "reason"), unreadable),
            (self.run.duplicates, ("content", "file", "split"), twice),
        ):
            if lines:
                with atomic_write(path, "w", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerows([header, *lines])
