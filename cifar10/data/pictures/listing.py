"""How a folder of pictures, or a table that names them, becomes `Pictures`: nothing is decoded."""

import contextlib
import hashlib
import itertools
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar10.data.pictures import Pictures
from cifar10.data.pictures.classes import in_words, name_classes, natural
from cifar10.data.pictures.layout import place_folders
from cifar10.data.pictures.scan import scan
from cifar10.data.pictures.tables import Row, read_table
from cifar10.errors import UserError, cause_of

LOOSE = "pictures outside class folders"
REMEDIES = {
    (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"): "unpack the archive",
    (".parquet",): "use data=parquet for parquet files",
    (".csv", ".tsv"): "name a CSV file of pictures and labels with data.labels=FILE",
}


class Listed(NamedTuple):
    """A picture by its path from the root; state: size and times, which tell whether it has changed."""

    file: str
    label: str
    split: str
    state: tuple[int, ...]


def list_folder(root: Path, leaf: bool = False) -> tuple[Pictures, tuple[str, ...]]:
    """The pictures in class folders below `root`, or below folders of splits in it, and the names of the classes.

    leaf: a class is an innermost folder, named by its path, instead of the first below the split.
    Raises UserError for what is no data set.
    """
    _check_root(root)
    found = scan(root)
    places = place_folders(root, {folder: len(files) for folder, files in found.folders.items()}, leaf)
    listed = [
        Listed(f"{folder}/{name}", label, split, tuple(state))
        for folder, (split, label) in places.items()
        for name, *state in found.folders[folder]
    ]
    if loose := sum(map(len, found.folders.values())) - len(listed):
        found.skipped[LOOSE] = loose
    if not listed:
        raise UserError(_nothing_in(root, found.skipped))
    classes = name_classes(root, {(picture.label, picture.split) for picture in listed})
    return _pictures(root, listed, classes, dict(found.skipped.most_common()))


def list_table(root: Path, table: Path) -> tuple[Pictures, tuple[str, ...]]:
    """The pictures that a CSV file names with their labels, and the names of the classes, see `read_table`.

    table: looked for in the working folder, then in `root`. Its files are relative to `root` or to its own folder; a
    bare name, with or without a suffix, is looked for in the folders below `root`.
    Raises UserError for rows that contradict one another and for files that do not exist.
    """
    _check_root(root)
    if not (table := next((path for path in (table, root / table) if path.is_file()), table)).is_file():
        raise UserError(f"data.labels={table}: no such file, nor is it in {root}")
    rows = read_table(table)
    if all(re.fullmatch(r"-?[0-9]+\.0+", row.label) for row in rows):  # pandas has made floats of them
        rows = [row._replace(label=row.label.partition(".")[0]) for row in rows]
    listed: dict[str, Listed] = {}
    missing = []
    for row, (file, state) in zip(rows, _locate(rows, root, table.parent), strict=True):
        if file is None:
            missing.append(row.file)
            continue
        before = listed.setdefault(file, Listed(file, row.label, row.split, state))
        if (before.label, before.split) != (row.label, row.split):
            one, other = (", ".join(filter(None, (place.label, place.split))) for place in (before, row))
            raise UserError(f"{table}: {file} is in two rows that differ: {one}; {other}")
    if missing:
        some = ", ".join(repr(file) for file in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"{table}: {len(missing):,} of {len(rows):,} files do not exist: {some}; "
            f"the names must be relative to {root} or to the table's folder"
        )
    return _pictures(root, list(listed.values()), name_classes(table, {(row.label, row.split) for row in rows}))


def _check_root(root: Path) -> None:
    try:
        mode = os.stat(root).st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"data.root={root}: cannot be read ({cause_of(error)})") from error
    if not stat.S_ISDIR(mode):
        remedy = _remedy({root.suffix.lower()}) or "name the folder that holds the pictures"
        raise UserError(f"data.root={root}: is a file, not a folder; {remedy}")


def _nothing_in(root: Path, skipped: Counter[str]) -> str:
    if skipped[LOOSE]:
        return (
            f"{root} has {skipped[LOOSE]:,} pictures, but none in a folder of its class: put them in {root}/<class>/, "
            "or name a CSV file of pictures and labels with data.labels=FILE"
        )
    remedy = _remedy({what.partition(" ")[0] for what in skipped}) or f"put pictures in {root}/<class>/"
    return f"{root} has no pictures, but {in_words(skipped) if skipped else 'nothing'}: {remedy}"


def _remedy(suffixes: set[str]) -> str:
    return next((words for known, words in REMEDIES.items() if suffixes & set(known)), "")


def _locate(rows: list[Row], root: Path, beside: Path) -> Iterator[tuple[str | None, tuple[int, ...]]]:
    """For each row the path from the root, absolute if outside, and its state; None for files that do not exist."""
    folders = [os.path.abspath(root), os.path.abspath(beside)]
    by_name = None
    for row in rows:
        for name, folder in itertools.product({row.file: None, row.file.replace("\\", "/"): None}, folders):
            path = os.path.normpath(os.path.join(folder, name))
            with contextlib.suppress(OSError, ValueError):
                if stat.S_ISREG((info := os.stat(path)).st_mode):
                    yield path.removeprefix(f"{folders[0]}{os.sep}"), (info.st_size, info.st_mtime_ns, info.st_ctime_ns)
                    break
        else:
            by_name = _by_name(root) if by_name is None else by_name
            yield by_name.get(row.file, (None, ()))


def _by_name(root: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The pictures below the root by their bare names and by these without the suffix, where only one has it."""
    places = defaultdict(list)
    for folder, files in scan(root).folders.items():
        for name, *state in files:
            for key in {name, os.path.splitext(name)[0]}:
                places[key].append((f"{folder}/{name}".lstrip("/"), tuple(state)))
    return {key: found[0] for key, found in places.items() if len(found) == 1}


def _pictures(
    root: Path, listed: list[Listed], classes: dict[str, str], skipped: dict[str, int] | None = None
) -> tuple[Pictures, tuple[str, ...]]:
    """classes: the class of each label."""
    # by name before folder: numbered images of any classes keep their order
    listed = sorted(listed, key=lambda picture: (natural(os.path.basename(picture.file)), natural(picture.file)))
    class_names = tuple(sorted(set(classes.values()), key=natural))
    number = {label: class_names.index(name) for label, name in classes.items()}
    files = [picture.file for picture in listed]
    states = "\0".join(f"{picture.file}\0{picture.state}" for picture in listed)
    pictures = Pictures(
        files=tuple(file.encode("utf-8", "backslashreplace").decode() for file in files),  # some names are no text
        labels=np.array([number[picture.label] for picture in listed], np.int64),
        splits=np.array([picture.split for picture in listed]),
        read=partial(_path, root, files),
        fingerprint=hashlib.sha256(os.fsencode(states)).hexdigest(),
        skipped=skipped or {},
    )
    return pictures, class_names


def _path(root: Path, files: list[str], index: int) -> Path:
    return root / files[index]
