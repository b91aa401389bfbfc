"""Rows as a table for people, as CSV, or as JSON; each is written as it comes."""

import csv
import json
from collections.abc import Iterator
from typing import TextIO

from cifar10.inference.predicting.streaming import Row
from cifar10.report.numbers import printable


def write_table(rows: Iterator[Row], file: TextIO, top: int, names: list[str]) -> None:
    """One line for each picture; names: of all files, which say how wide the first column is."""
    width = min(max(map(len, names)), 60)
    for row in rows:
        found = row.prediction.top(top) if row.prediction else ()
        longest = max(map(len, row.prediction.class_names)) if row.prediction else 0
        classes = "   ".join(f"{name:<{longest}} {probability:6.1%}" for name, probability in found)
        text = classes or f"cannot be read: {row.error}"
        print(f"{printable(row.file):<{width}}  {text}".rstrip(), file=file, flush=True)


def write_csv(rows: Iterator[Row], file: TextIO, top: int, names: list[str]) -> None:
    """Columns file, class_1, probability_1, class_2, ..., error."""
    table = csv.writer(file, lineterminator="\n")
    numbers = range(1, top + 1)
    table.writerow(["file", *(f"{what}_{number}" for number in numbers for what in ("class", "probability")), "error"])
    for row in rows:
        found = row.prediction.top(top) if row.prediction else []
        cells = [cell for name, probability in found for cell in (name, f"{probability:.6f}")]
        table.writerow([row.file, *cells, *[""] * (2 * top - len(cells)), row.error or ""])
        file.flush()


def write_json(rows: Iterator[Row], file: TextIO, top: int, names: list[str]) -> None:
    """A list of {"file", "predictions": [{"class", "probability"}, ...]} or {"file", "error"}."""
    before = "[\n"
    for row in rows:
        found = row.prediction.top(top) if row.prediction else []
        predictions = [{"class": name, "probability": round(probability, 6)} for name, probability in found]
        content = {"error": row.error} if row.error else {"predictions": predictions}
        file.write(before + json.dumps({"file": row.file} | content, ensure_ascii=False))
        file.flush()
        before = ",\n"
    file.write("\n]\n")


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json}
