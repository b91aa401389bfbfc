"""Tables of file, label and split, as CSV files: a user's `data.labels`, and the split that a run remembers."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cifar10.data.pictures import SPLITS, UNUSED
from cifar10.errors import UserError, cause_of
from cifar10.files import atomic_write

# The names that a column may have, clearest first; two of one rank are ambiguous.
COLUMNS = {
    "file": (
        {"file"},
        {"filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "image_file", "image_name",
         "image_filename", "img", "img_path"},
        {"id", "image_id"},
    ),
    "label": ({"label"}, {"labels", "class", "class_name", "category", "target"}),
    "split": ({"split"}, {"set", "subset", "partition", "fold"}),
}  # fmt: skip
SPLIT_WORDS = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
    UNUSED: UNUSED,
}


class Row(NamedTuple):
    """split: "train", "val", "test" or "unused", or "" in all rows of a table that does not say."""

    file: str
    label: str
    split: str


def read_table(path: str | Path) -> list[Row]:
    """The rows of a CSV file with a header; commas, semicolons, tabs or bars between columns, other columns ignored.

    Column names may be those of `COLUMNS`. Raises UserError that names the line.
    """
    text = _text(path)
    delimiter, places = _columns(path, text)
    lines = _cells(path, text, delimiter)
    _, header = next(lines)
    rows = []
    for line, cells in lines:
        if not any(map(str.strip, cells)):
            continue
        if any(cells[len(header) :]):
            raise UserError(f"{path}, line {line}: {len(cells)} columns, but the header has {len(header)}")
        cells += [""] * (len(header) - len(cells))
        file, label, split = ("" if place is None else cells[place] for place in places.values())
        if not file.strip() or not label.strip():
            raise UserError(f"{path}, line {line}: {'label' if file.strip() else 'file'} is empty: fill it in")
        rows.append(Row(file, label, _split(path, line, split)))
    if not rows:
        raise UserError(f"{path} has no rows")
    unsaid = sum(not row.split for row in rows)
    if 0 < unsaid < len(rows):
        raise UserError(f"{path}: {unsaid:,} of {len(rows):,} rows have no split: fill it in for all, or for none")
    return rows


def write_table(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows (file, label, split) so that `read_table` returns the same, atomically."""
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")  # keeps spaces at the edges of a name
        writer.writerow(Row._fields)
        writer.writerows(rows)


def _text(path: str | Path) -> str:
    try:
        content = Path(path).read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return content.decode(encoding).lstrip("\r\n")
    except UnicodeError as error:
        raise UserError(f"{path} is no text in UTF-8: save it as CSV in UTF-8") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({cause_of(error)})") from error


def _cells(path: str | Path, text: str, delimiter: str, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """The number of its first line, counted from 1, and the cells of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: {cause_of(error)}: quote cells as spreadsheets and pandas do") from error


def _columns(path: str | Path, text: str) -> tuple[str, dict[str, int | None]]:
    """What separates the columns, and the place of each of `COLUMNS`, None for a split that is not there."""
    if not text.strip():
        raise UserError(f"{path} is empty: it must have columns file and label")
    headers = {delimiter: next(_cells(path, text, delimiter, strict=False))[1] for delimiter in ",;\t|"}
    for delimiter, header in headers.items():
        places = {column: _place(path, column, header) for column in COLUMNS}
        if places["file"] is not None and places["label"] is not None:
            return delimiter, places
    found = ", ".join(repr(name) for name in max(headers.values(), key=len)[:12])
    raise UserError(f"{path} must have columns file and label, and may have split; its first line has {found}")


def _place(path: str | Path, column: str, header: list[str]) -> int | None:
    names = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in header]
    for rank in COLUMNS[column]:
        places = [place for place, name in enumerate(names) if name in rank]
        if len(places) > 1:
            both = " and ".join(repr(header[place]) for place in places)
            raise UserError(f"{path}: {both} may each be the {column}: call one of them {column}")
        if places:
            return places[0]
    return None


def _split(path: str | Path, line: int, text: str) -> str:
    split = SPLIT_WORDS.get(text.strip().lower(), "")
    if text.strip() and not split:
        raise UserError(f"{path}, line {line}: the split {text!r} must be one of {', '.join((*SPLITS, UNUSED))}")
    return split
