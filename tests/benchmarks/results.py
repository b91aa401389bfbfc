"""Measurements in turn, and what comes of them: a table and JSON."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch

from cifar10.data.sources import find_source
from cifar10.training.run import commit
from tests.benchmarks.settings import Settings

FORMATS = {"images/s": "{:,.0f} images/s", "s": "{:.4g} s", "GB": "{:.2f} GB", "TFLOP/s": "{:.3g} TFLOP/s"}


@dataclass
class Series:
    """One thing measured several times; `measure` returns a figure in `unit`, of which the median counts.

    images: how many pass in those seconds.
    """

    name: str
    unit: str
    measure: Callable[[], float]
    images: int | None = None
    runs: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def words(self, value: float) -> str:
        rate = f" ({self.images / value:,.0f} images/s)" if self.images else ""
        return FORMATS[self.unit].format(value) + rate

    def summary(self) -> dict[str, object]:
        return {"name": self.name, "median": self.median, "runs": self.runs, "images": self.images}


@dataclass
class Result:
    """A line of the table: a figure `a`, beside a figure `b` where there is one, and their ratio a / b.

    wanted: of the ratio; of `a` where there is no `b`.
    """

    section: str
    name: str
    a: Series
    b: Series | None = None
    wanted: str = ""

    @property
    def ratio(self) -> float | None:
        return self.a.median / self.b.median if self.b else None

    def summary(self) -> dict[str, object]:
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.a.unit,
            "a": self.a.summary(),
            "b": self.b.summary() if self.b else None,
            "ratio": self.ratio,
            "wanted": self.wanted or None,
        }

    def cells(self) -> list[str]:
        sides = [f"{side.name}: {side.words(side.median)}" if side else "" for side in (self.a, self.b)]
        return [self.section, self.name, *sides, "" if self.ratio is None else f"{self.ratio:.2f}", self.wanted]


def in_turn(title: str, repeats: int, *series: Series) -> None:
    """Measure A B A B ..., so that what else the machine does meets all of them alike."""
    for _ in range(repeats):
        for one in series:
            one.runs.append(one.measure())
            print(f"{title}: {one.name} {one.words(one.runs[-1])}", file=sys.stderr)


def pair(settings: Settings, section: str, name: str, a: Series, b: Series, wanted: str = "") -> Result:
    """Two series measured in turn."""
    in_turn(f"{section}, {name}", settings.repeats, a, b)
    return Result(section, name, a, b, wanted)


def environment(settings: Settings) -> dict[str, object]:
    """What the figures hold for."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "device": settings.device.type,
        "precision": str(settings.precision),
        "torch": torch.__version__,
        "pytorch-lightning": pl.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "data": find_source(settings.source).name,
        "repeats": settings.repeats,
        "quick": settings.quick,
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def heading(about: dict[str, object]) -> str:
    """The environment in two lines."""
    hardware = f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads"
    return (
        f"{hardware}, {about['gpu'] or 'no GPU'}; computing on {about['device']}, precision {about['precision']}\n"
        f"torch {about['torch']}, commit {about['commit']}; data: {about['data']}; medians of {about['repeats']}"
        f"{'; QUICK: its figures mean nothing' if about['quick'] else ''}"
    )


def table(results: list[Result]) -> str:
    rows = [["section", "measured", "a", "b", "a / b", "wanted"], *(result.cells() for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def write(path: Path, about: dict[str, object], results: list[Result]) -> None:
    """Write everything measured so far as JSON."""
    summary = {"environment": about, "results": [result.summary() for result in results]}
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    aside.replace(path)
