"""The classes of listed pictures: their names, their order, and what the log says of them before training."""

import difflib
import logging
import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np

from cifar10.data.pictures import SPLITS, UNUSED, Pictures
from cifar10.errors import UserError

log = logging.getLogger(__name__)

IN_FULL = 20  # classes that are described one by one


def natural(name: str) -> tuple[str, str]:
    """Sorts 2 before 10, and capitals beside small letters."""
    return re.sub("[0-9]+", lambda digits: digits[0].zfill(20), name.casefold()), name


def clean(label: str) -> str:
    """A class's name: folders and tables that differ only in Unicode form or in spaces around it mean the same."""
    return "/".join(unicodedata.normalize("NFC", part.strip()) for part in label.split("/"))


def name_classes(where: Path, labels: set[tuple[str, str]]) -> dict[str, str]:
    """The class of each label; labels that differ only in Unicode form or in spaces around them are one class.

    where: the folder or table that messages name. labels: with the split in which they occur. Raises UserError for
    names that cannot be shown, and for classes that only other splits than train have.
    """
    spelled, splits = defaultdict(set), defaultdict(set)
    for label, split in sorted(labels):
        name = clean(label)
        if not name or not name.isprintable():
            raise UserError(f"{where} has a class whose name cannot be printed, {label!a}: rename it")
        spelled[name].add(label)
        splits[name].add(split)
    for alike in spelled.values():
        if len(alike) > 1:
            log.warning("%s: %s are taken as one class", where, " and ".join(map(ascii, sorted(alike))))
    trained = [name for name, found in splits.items() if "train" in found]
    if trained and (unseen := sorted(splits.keys() - set(trained), key=natural)):
        name, *others = unseen
        near = difflib.get_close_matches(name, trained, n=1)
        shown = f"{name!a} (train has {near[0]!a})" if near else repr(name)
        more = f" and {len(others)} more" if others else ""
        held = " and ".join(split for split in (*SPLITS, UNUSED) if split in splits[name])
        raise UserError(f"{where}: {held} has a class that train lacks, {shown}{more}: add it there or remove it")
    return {label: name for name, alike in spelled.items() for label in alike}


def describe(pictures: Pictures, class_names: tuple[str, ...]) -> list[str]:
    """What has been listed, in lines for the log: the classes with their pictures in each split, what was passed over.

    Of many classes only the first are listed one by one.
    """
    table = np.zeros((len(class_names), len(SPLITS) + 1), int)
    columns = np.array([(*SPLITS, "").index(split) for split in pictures.splits if split != UNUSED], int)
    np.add.at(table, (pictures.labels[pictures.splits != UNUSED], columns), 1)
    lines = [f"{len(class_names):,} classes, {_counts(table.sum(axis=0))}"]
    lines += [f"  {name}: {_counts(counts)}" for name, counts in zip(class_names, table[:IN_FULL], strict=False)]
    if len(rest := table[IN_FULL:].sum(axis=1)):
        lines.append(f"  and {len(rest):,} more, of {rest.min():,} to {rest.max():,} pictures")
    if _all_deeper(pictures, class_names):
        lines.append("every picture lies in a folder below its class's: data.classes=leaf makes each of these a class")
    if pictures.skipped:
        lines.append(f"passed over: {in_words(pictures.skipped)}")
    return lines


def _counts(counts: np.ndarray) -> str:
    named = [f"{split} {count:,}" for split, count in zip(SPLITS, counts, strict=False) if count]
    return f"{counts.sum():,} pictures" + (f" ({', '.join(named)})" if named else "")


def in_words(skipped: dict[str, int]) -> str:
    some = [f"{count:,} {what}" for what, count in list(skipped.items())[:8]]
    return ", ".join(some + ["..."] * (len(skipped) > 8))


def _all_deeper(pictures: Pictures, class_names: tuple[str, ...]) -> bool:
    """Whether every picture lies in folders below that of its class."""
    places = {(os.path.dirname(file), label) for file, label in zip(pictures.files, pictures.labels, strict=True)}
    return all(class_names[label] in map(clean, folder.split("/")[:-1]) for folder, label in places)
