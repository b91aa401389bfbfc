"""Which of the listed pictures a run uses, and in which split: pure functions of what a source lists.

A split is an array of str (N,): "train", "val", "test", or "unused" for a picture that takes no part.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from cifar10.data.pictures import UNUSED, Pictures
from cifar10.data.pictures.tables import Row
from cifar10.data.split import size_of, split, stratified_order
from cifar10.errors import UserError
from cifar10.report.numbers import plural

log = logging.getLogger(__name__)

EXAMPLES = 3  # pictures that a message names


def draw(
    pictures: Pictures,
    test_size: int | float,
    val_size: int | float,
    train_size: int | float | None,
    seed: int,
) -> np.ndarray:
    """The source's own split, and drawn by `split` what it does not say.

    Pictures without a split become a test set of `test_size`, unless the source has one, and training pictures;
    validation pictures are taken from the training pictures unless the source has some. Raises ValueError for a size
    out of range.
    """
    splits = pictures.splits.astype("<U6")
    unsplit = np.flatnonzero(splits == "")
    splits[unsplit] = "train"
    if len(unsplit) and "test" not in splits:
        count = size_of("test_size", test_size, len(unsplit), len(unsplit), "pictures")
        splits[unsplit[stratified_order(pictures.labels[unsplit], seed)[:count]]] = "test"
    train = np.flatnonzero(splits == "train")
    if not len(train):
        return splits
    if "val" in splits:
        kept = stratified_order(pictures.labels[train], seed)
        if train_size is not None:
            kept = kept[: size_of("train_size", train_size, len(train), len(train), "training pictures")]
        val = train[:0]
    else:
        kept, val = split(pictures.labels[train], train_size, val_size, seed)
        val = train[val]
    chosen, splits[train], splits[val] = train[kept], UNUSED, "val"
    splits[chosen] = "train"
    return splits


def follow(pictures: Pictures, class_names: Sequence[str], rows: Sequence[Row], needed: Sequence[str]) -> np.ndarray:
    """The split that a run has remembered; pictures that have come since then take no part, and are counted in the log.

    needed: the splits whose pictures must all be there still. Raises UserError if they are not, or if the classes or
    the label of a picture are others than the run's.
    """
    now, then = {class_names[int(label)] for label in np.unique(pictures.labels)}, {row.label for row in rows}
    if now != then:
        sides = ((now - then, "new"), (then - now, "gone"))
        changed = "; ".join(f"{what}: {', '.join(map(ascii, sorted(names)))}" for names, what in sides if names)
        raise UserError(f"the classes are no longer those that the run was trained on ({changed}): train a new run")
    remembered, splits = {row.file: row for row in rows}, np.full(len(pictures), UNUSED)
    relabelled, new = [], 0
    for index, file in enumerate(pictures.files):
        if row := remembered.pop(file, None):
            splits[index] = row.split
            if row.label != class_names[pictures.labels[index]]:
                relabelled.append(file)
        else:
            new += 1
    gone = [file for file, row in remembered.items() if row.split in needed]
    for files, what in ((gone, "are gone"), (relabelled, "have another label")):
        if files:
            raise UserError(
                f"{len(files):,} of the run's pictures {what} ({named(files)}): put them back, or train a new run"
            )
    if new:
        log.info(f"{plural(new, 'picture')} that the run did not have are left out")
    return splits


def duplicates(splits: np.ndarray, digests: np.ndarray) -> list[list[int]]:
    """Groups of pictures that are in several splits though their content is the same, by index.

    digests: of each picture's content, (N,).
    """
    order = [index for index in np.argsort(digests, kind="stable") if splits[index] != UNUSED]
    groups = (list(group) for _, group in groupby(order, key=lambda index: digests[index]))
    return [group for group in groups if len({str(splits[index]) for index in group}) > 1]


def leave_out_duplicates(splits: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """The split in which a picture that is in several is left only in the last of train, val, test."""
    splits, rank = splits.copy(), {"train": 0, "val": 1, "test": 2}
    for group in groups:
        last = max(rank[splits[index]] for index in group)
        splits[[index for index in group if rank[splits[index]] < last]] = UNUSED
    return splits


def named(files: Sequence[str], separator: str = ", ") -> str:
    """The first few of them."""
    more = len(files) - EXAMPLES
    return separator.join(files[:EXAMPLES]) + (f"{separator}and {more:,} more" if more > 0 else "")


def check_readable(
    pictures: Pictures, class_names: Sequence[str], errors: Mapping[int, str], most: int | float, listed: str = ""
) -> None:
    """UserError if more pictures of a class cannot be read than may be left out.

    errors: the reason, by index. most: a number, or a fraction of the class, of which at least one picture. listed:
    where all of them are listed.
    """
    labels, bad = pictures.labels, sorted(errors)
    counts, failed = (np.bincount(of, minlength=len(class_names)) for of in (labels, labels[bad]))
    allowed = np.ceil(most * counts) if isinstance(most, float) else np.full(len(counts), most)
    for label in np.flatnonzero(failed > allowed).tolist():
        reasons = [f"{pictures.files[index]}: {errors[index]}" for index in bad if labels[index] == label]
        raise UserError(
            f"{failed[label]:,} of {plural(int(counts[label]), 'picture')} of the class {class_names[label]} cannot be"
            f" read ({named(reasons, '; ')}), more than data.max_unreadable={most} allows: repair or remove them, or"
            " raise it" + f"; all are listed in {listed}" * bool(listed)
        )


def shown_names(names: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
    """Two lists of class names as text, in ASCII where a difference might not be seen: Unicode forms, spaces."""
    one, other = ", ".join(names), ", ".join(others)
    if all(text.isascii() and "  " not in text for text in (one, other)):
        return one, other
    return ", ".join(map(ascii, names)), ", ".join(map(ascii, others))
