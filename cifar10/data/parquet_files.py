"""Parquet files of pictures: which columns hold the pictures and the classes, and what is in them."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar10.errors import UserError, cause_of
from cifar10.progress import Progress

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise UserError("data=parquet: needs pyarrow; pip install 'cifar10[parquet]'") from error

PICTURES = ("image", "img", "picture")
LABELS = ("label", "labels", "fine_label", "target", "class")


class Table(NamedTuple):
    """A file, the columns to read, the names of its classes, if it has any, and the rows in each row group."""

    file: Path
    pictures: str
    labels: str
    class_names: tuple[str, ...] | None
    groups: list[int]


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {file} as Parquet ({cause_of(error)}): replace it") from error


def open_table(file: Path) -> Table:
    """Find a file's columns, pictures being bytes or struct{bytes, path}; UserError if it lacks one."""
    with opened(file) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
        groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    there = f"{file} has the columns {', '.join(f'{field.name} ({field.type})' for field in schema)}"[:500]
    able = [field.name for field in schema if holds_pictures(field.type)]
    pictures = [name for name in PICTURES if name in able] or able
    if not pictures or (len(pictures) > 1 and pictures[0] not in PICTURES):
        raise UserError(f"{there}: pictures belong in {' or '.join(PICTURES)}, as bytes or struct{{bytes, path}}")
    labels = [name for name in LABELS if name in schema.names]
    if not labels:
        raise UserError(f"{there}: classes belong in {' or '.join(LABELS)}")
    inner = ".bytes" if pa.types.is_struct(schema.field(pictures[0]).type) else ""
    return Table(file, pictures[0] + inner, labels[0], named_classes(schema.metadata, labels[0]), groups)


def holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_pictures(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def named_classes(metadata: Any, column: str) -> tuple[str, ...] | None:
    """The names of a `ClassLabel` in what Hugging Face's `datasets` writes into a schema; None without them."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):  # other writers leave nothing there, or something else
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def read_labels(tables: Sequence[Table]) -> pa.ChunkedArray:
    """The labels of all files in turn, as int64 or text."""
    found = []
    with Progress(sum(sum(table.groups) for table in tables), "reading labels") as progress:
        for table in tables:
            with opened(table.file) as parquet:
                labels = parquet.read(columns=[table.labels]).column(0)
                kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
                is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
                if not is_text and not pa.types.is_integer(kind):
                    raise UserError(f"{table.file}: {table.labels} is {kind}; classes are whole numbers or text")
                found.append(labels.cast(pa.string() if is_text else pa.int64()))
            progress.update(len(labels))
    if len({labels.type for labels in found}) > 1:
        raise UserError(f"{tables[0].file.parent}: {tables[0].labels} is text in one file, numbers in another")
    return pa.chunked_array([chunk for labels in found for chunk in labels.chunks], found[0].type)


def number_classes(
    labels: pa.ChunkedArray, names: tuple[str, ...] | None, root: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names, and the number of each row's class, below 0 for none; UserError if no row has one."""
    if names is None or pa.types.is_string(labels.type):
        values = labels.unique().to_pylist()
        values = sorted(
            (one for one in values if one not in (None, "") and (isinstance(one, str) or one >= 0)), key=natural
        )
        known = pc.SetLookupOptions(pa.array(values, labels.type))
        labels, names = pc.call_function("index_in", [labels], known), tuple(map(str, values))
    numbers = pc.fill_null(labels, -1).to_numpy().astype(np.int64)
    if not (numbers >= 0).any():
        raise UserError(f"{root}: no row has a label")
    if numbers.max() >= len(names):
        raise UserError(f"{root}: a label is {numbers.max()}, but only {len(names)} classes have names; mend either")
    return names, numbers


def natural(value: str | int) -> tuple[list[str | int], str]:
    """A key that sorts 2 before 10."""
    parts = re.split(r"(\d+)", str(value))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(value)


def read_picture(
    groups: Sequence[tuple[Path, int]], ends: np.ndarray, column: str, rows: np.ndarray, index: int
) -> bytes:
    """The encoded picture in one of `rows`, which are numbered through all row groups; b"" if there is none.

    groups: file and number of each row group. ends: the row after its last.
    """
    number = int(np.searchsorted(ends, rows[index], side="right"))
    pictures = read_group(*groups[number], column)
    return pictures[int(rows[index] - ends[number])].as_py() or b""


@lru_cache(maxsize=1)  # in each process: workers read consecutive rows
def read_group(file: Path, number: int, column: str) -> pa.ChunkedArray:
    with opened(file) as parquet:
        return parquet.read_row_group(number, columns=[column], use_threads=False).flatten().column(0)
