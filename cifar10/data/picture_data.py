"""The pictures of a source as a run uses them: a store of them all, and the split of each, which the run remembers."""

import csv
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cifar10.data.classes import describe
from cifar10.data.pictures import UNUSED
from cifar10.data.preprocessing import Preprocessing
from cifar10.data.selection import check_readable, draw, duplicates, follow, leave_out_duplicates, named
from cifar10.data.sources import PictureSource
from cifar10.data.split import stratified_order
from cifar10.data.store import open_store
from cifar10.data.tables import Row, read_table, write_table
from cifar10.files import atomic_write
from cifar10.report.numbers import plural
from cifar10.run_folder import RunFolder

log = logging.getLogger(__name__)


@dataclass
class PictureData:
    """Selects pictures, and has them decoded.

    test_size: of the pictures, where the source has no split: a number or a fraction. val_size, train_size, split_seed:
    see `CIFAR10DataModule`. max_unreadable: pictures of a class that may be left out because they cannot be read: a
    number, or a fraction of the class, of which at least one. duplicates: "drop" leaves a picture that is in several
    splits only in the last of train, val, test. cache: the folder of stores.
    Raises ValueError for a value out of range.
    """

    source: PictureSource
    test_size: int | float
    val_size: int | float
    train_size: int | float | None
    split_seed: int
    max_unreadable: int | float
    duplicates: str
    cache: str | None

    run: RunFolder | None = None  # whose split is followed, if it has one
    keeps: bool = False  # in the run's folder, what is selected and what is left out

    def __post_init__(self) -> None:
        most = self.max_unreadable
        if not 0 <= most < math.inf or (isinstance(most, float) and most > 1):
            raise ValueError(f"max_unreadable={most}: must be a number from 0 up, or a fraction up to 1.0")

    def load(self, preprocessing: Preprocessing, training: bool) -> None:
        """Set `pictures`, `store`, `splits` and `twice`, and log what is there.

        training: whether training pictures must all be there. splits: see `cifar10.data.selection`. twice: groups of
        indices whose content is the same in several splits.
        Raises UserError for pictures that are gone or cannot be read, and ValueError for a size out of range.
        """
        self.pictures, names = self.source.pictures(), self.source.class_names
        remembered = self.run is not None and self.run.split.exists()
        if remembered:
            needed = ("train", "val", "test") if training else ("val", "test")
            splits = follow(self.pictures, names, read_table(self.run.split), needed)
        else:
            splits = draw(self.pictures, self.test_size, self.val_size, self.train_size, self.split_seed)
        cache = None if self.cache is None else Path(self.cache).expanduser()
        fit = (preprocessing.store_size, preprocessing.resize_mode, preprocessing.background)
        self.store = open_store(self.pictures, *fit, cache)
        self.twice = duplicates(splits, self.store.digests)
        if self.duplicates == "drop":
            splits = leave_out_duplicates(splits, self.twice)
        splits[list(self.store.errors)] = UNUSED
        self.splits = splits
        self.announce()
        if self.keeps:
            self.write_problems()
        check_readable(self.pictures, names, self.store.errors, self.max_unreadable)
        if self.keeps and not remembered:
            self.write_split()

    def indices(self, stage: str) -> np.ndarray:
        """Of the pictures in "train", "val" or "test"; in the order in which arrays of the same images would stand."""
        if stage == "test":
            return np.flatnonzero(self.splits == "test")
        members = np.flatnonzero(np.isin(self.splits, ("train", "val")))
        order = members[stratified_order(self.pictures.labels[members], self.split_seed)]
        return order[self.splits[order] == stage]

    def announce(self) -> None:
        """Log what there is of each class and split, and what was passed over or left out."""
        used, errors = replace(self.pictures, splits=self.splits), self.store.errors
        log.info(f"{self.source.name}: " + "\n".join(describe(used, self.source.class_names)))
        if errors:
            reasons = [f"{self.pictures.files[index]}: {errors[index]}" for index in sorted(errors)]
            log.warning(f"{plural(len(errors), 'picture')} cannot be read and are left out ({named(reasons, '; ')})")
        if self.twice:
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
