"""A Hugging Face data set on disk: Parquet files with a column of encoded pictures and one of labels."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from cifar10.data.parquet_files import natural, number_classes, open_table, read_labels, read_picture
from cifar10.data.pictures import Pictures
from cifar10.errors import UserError

log = logging.getLogger(__name__)

SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "val")


class ParquetPictures:
    """Pictures in `<root>/*.parquet`, or in the one folder below it that has such files, often `data/`.

    The split is the first word of a file's name, `train-00000-of-00002.parquet`, or of its folder's. Where no file has
    one, a split is drawn; where only some have one, the other files are passed over.
    The columns are found by name, see `open_table`. Classes are text, in natural order, or whole numbers, which the
    files may name. Rows without a label (null, or -1 as in many test splits) are left out. A picture is called after
    its file and row: `train-00000-of-00002.parquet/17`.
    """

    synthetic = False

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self.name = str(root)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._listed[0]

    def prepare(self) -> None:
        self.pictures()

    def pictures(self) -> Pictures:
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[tuple[str, ...], Pictures]:
        """The class names, and the pictures that have a label."""
        found = find_files(self.root)
        chosen = [file for file in found if split_of(file)] or found
        tables = [open_table(self.root / file) for file in chosen]
        first = tables[0]
        for table in tables:
            if table[1:4] != first[1:4]:
                raise UserError(
                    f"{table.file} and {first.file.name} differ in their columns or class names:"
                    f" {table.pictures}, {table.labels} and {first.pictures}, {first.labels}; replace one of them"
                )
        names, labels = number_classes(read_labels(tables), first.class_names, self.root)
        sizes = [sum(table.groups) for table in tables]
        splits = np.repeat([split_of(file) for file in chosen], sizes)
        for split, count in Counter(splits[labels < 0].tolist()).items():
            which = f"{(splits == split).sum():,} rows{split and f' of {split}'}"
            log.warning(f"{self.name}: {count:,} of {which} have no label: left out")
        rows = np.flatnonzero(labels >= 0)
        places = [f"{file.as_posix()}/{row}" for file, size in zip(chosen, sizes, strict=True) for row in range(size)]
        groups = [(table.file, number) for table in tables for number in range(len(table.groups))]
        ends = np.cumsum([size for table in tables for size in table.groups])
        others = len(found) - len(chosen)
        return names, Pictures(
            files=tuple(places[row] for row in rows),
            labels=labels[rows],
            splits=splits[rows],
            read=partial(read_picture, groups, ends, first.pictures, rows),
            fingerprint=fingerprint(self.root, chosen),
            skipped={"files of other splits": others} if others else {},
        )


def find_files(root: Path) -> list[Path]:
    """The Parquet files of a root, relative to it, in natural order.

    UserError if there are none, too few, or those of several data sets.
    """
    found = [file.relative_to(root) for file in root.rglob("*.parquet") if file.is_file()]
    found = [file for file in found if not any(part.startswith(".") for part in file.parts)]
    if not found:
        raise UserError(f"{root} has no .parquet files: set data.root=FOLDER to the folder of a data set")
    folders = {file.parent.parent if word(file.parent) in SPLITS else file.parent for file in found}
    if len(folders) > 1:
        names = ", ".join(sorted(str(root / folder) for folder in folders))
        raise UserError(f"{root} has several data sets: set data.root=FOLDER to one of {names}")
    numbered = Counter(part.groups() for file in found if (part := re.fullmatch(r"(.*)-\d+-of-(\d+)", file.stem)))
    for (name, total), count in numbered.items():
        if count < int(total):
            raise UserError(f"{root} has {count} of the {int(total)} files {name}-*-of-{total}.parquet: add the others")
    return sorted(found, key=lambda file: natural(file.as_posix()))


def split_of(file: Path) -> str:
    """ "train", "val" or "test" by the first word of a file's name or of its folder's, else ""."""
    return SPLITS.get(word(file)) or SPLITS.get(word(file.parent), "")


def word(path: Path) -> str:
    return re.findall("^[a-z]*", path.name.lower())[0]


def fingerprint(root: Path, files: Sequence[Path]) -> str:
    facts = [
        (file.as_posix(), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file in files if (s := (root / file).stat())
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
