"""A sweep's jobs as plain values: which settings are best, over seeds, and which none beats. Imports nothing heavy."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cifar10.report.numbers import UNKNOWN, printable, rounded

SEED = "seed"


@dataclass(frozen=True)
class Objective:
    """A figure of which a sweep looks for the best value; mode: "max" or "min"."""

    name: str = "val/acc"
    mode: str = "max"

    @property
    def wanted(self) -> str:
        return "highest" if self.mode == "max" else "lowest"

    def key(self, value: float | None) -> float:
        """Sorts the best first, and what is not a number last."""
        return math.inf if value is None or math.isnan(value) else -value if self.mode == "max" else value


@dataclass
class Job:
    """status: finished, pruned, failed or unfinished; reason: why it was pruned or failed.

    figures: the numbers in run.json by dotted key, none before it has finished. rows: of metrics.csv, one an epoch.
    folder: within the sweep's.
    """

    number: int
    status: str
    overrides: dict[str, str]
    reason: str = ""
    folder: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    rows: Sequence[dict[str, float]] = ()
    hardware: str = ""

    @property
    def seconds(self) -> float:
        """Of training, as far as it is known."""
        return self.figures.get("seconds") or sum(row.get("seconds", 0) for row in self.rows)

    @property
    def epochs(self) -> int:
        return int(self.figures.get("epochs") or len(self.rows))

    def value(self, name: str) -> float | None:
        """A figure of a finished job; None if it is unknown or not finite."""
        found = self.figures.get(name)
        return found if found is not None and math.isfinite(found) else None


@dataclass
class Setting:
    """What jobs have in common that differ in nothing but their seed; values: the settings in which it differs."""

    values: dict[str, str]
    jobs: list[Job]

    def results(self, name: str) -> list[float]:
        return [value for job in self.jobs if (value := job.value(name)) is not None]

    def mean(self, name: str) -> float | None:
        return statistics.fmean(found) if (found := self.results(name)) else None

    def spread(self, name: str) -> Any:
        """`mean`, sample standard deviation `std` (None for a single seed) and `n`; None without a result."""
        found = self.results(name)
        std = statistics.stdev(found) if len(found) > 1 else None
        return {"mean": self.mean(name), "std": std, "n": len(found)} if found else None


@dataclass
class Sweep:
    """name: of its folder, as the user can type it. planned: how many jobs there will be, None if that is unknown.

    commands: what to do next, by what it is for.
    """

    name: str
    jobs: Sequence[Job]
    objectives: Sequence[Objective] = (Objective(),)
    planned: int | None = None
    commands: dict[str, str] = field(default_factory=dict)

    @cached_property
    def shared(self) -> dict[str, str]:
        """The settings that are the same in all jobs."""
        keys = dict.fromkeys(key for job in self.jobs for key in job.overrides)
        values = {key: {job.overrides.get(key) for job in self.jobs} for key in keys}
        return {key: str(value) for key, found in values.items() if len(found) == 1 for value in found}

    @cached_property
    def differing(self) -> list[str]:
        return [key for key in dict.fromkeys(k for job in self.jobs for k in job.overrides) if key not in self.shared]

    @cached_property
    def keys(self) -> list[str]:
        """The settings that differ, without the seed."""
        return [key for key in self.differing if key != SEED]

    @property
    def objective(self) -> Objective:
        """What jobs are sorted by."""
        return self.objectives[0]

    @cached_property
    def best_first(self) -> list[Job]:
        ties = Objective("val/loss", "min")

        def key(job: Job) -> tuple[float, ...]:
            return (*(each.key(job.value(each.name)) for each in (*self.objectives, ties)), job.number)

        return sorted(self.jobs, key=key)

    @cached_property
    def settings(self) -> list[Setting]:
        """Best first by the mean over seeds; those without a result last."""
        groups: dict[tuple, list[Job]] = {}
        for job in sorted(self.jobs, key=lambda job: job.number):
            groups.setdefault(tuple(job.overrides.get(key, "") for key in self.keys), []).append(job)
        found = [Setting(dict(zip(self.keys, values, strict=True)), jobs) for values, jobs in groups.items()]
        return sorted(found, key=lambda setting: self.objective.key(setting.mean(self.objective.name)))

    @cached_property
    def ranked(self) -> list[Setting]:
        """Best first, those with a result."""
        return [setting for setting in self.settings if setting.mean(self.objective.name) is not None]

    @property
    def unvalidated(self) -> bool:
        """Whether jobs have finished, and none of them had images to validate on."""
        finished = self.of_status("finished")
        return bool(finished) and all(job.figures.get("val_images") == 0 for job in finished)

    @cached_property
    def front(self) -> list[Setting]:
        """The Pareto front: the settings that no other equals or beats in every objective's mean."""
        points = {}
        for setting in self.ranked:
            means = [setting.mean(objective.name) for objective in self.objectives]
            if None not in means:
                points[id(setting)] = [each.key(mean) for each, mean in zip(self.objectives, means, strict=True)]
        return [
            setting
            for setting in self.ranked
            if id(setting) in points and not any(beats(other, points[id(setting)]) for other in points.values())
        ]

    def of_status(self, *names: str) -> list[Job]:
        return [job for job in sorted(self.jobs, key=lambda job: job.number) if job.status in names]

    @property
    def left(self) -> int:
        """Jobs that have neither ended nor been pruned, begun or not."""
        return max(self.planned or 0, len(self.jobs)) - len(self.of_status("finished", "pruned", "failed"))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a point is nowhere worse than another, and better somewhere; lower is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def written(values: dict[str, str]) -> str:
    """Settings as they are typed, on one line; a dash where there is none."""
    return printable(" ".join(f"{key}={rounded(value)}" for key, value in values.items() if value)) or UNKNOWN


def numbers_of(jobs: Iterable[Job]) -> str:
    return ", ".join(str(job.number) for job in jobs)
