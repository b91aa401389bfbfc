"""The result of a sweep: a table, best job first, printed at its end and written as `summary.csv` beside the jobs.

Each job's process records that it began and how it ended, in the sweep's `.jobs/`, since a failed one may leave no
folder; the figures come from its `run.json`. Imports nothing heavy: the command line waits for it.
"""

import contextlib
import csv
import json
import math
import shlex
import shutil
import statistics
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from cifar10.errors import FolderBusy, Pruned, UserError, one_line
from cifar10.files import atomic_write
from cifar10.processes import is_worker
from cifar10.run_folder import RunFolder, quoted, shown
from cifar10.sweeps.jobs import NOTES, keep_overrides, write_note

FIGURES = ("val/acc", "val/loss", "seconds", "epochs")  # of run.json
WIDTH = 32  # of a printed override, in characters


class SweepNotes(Callback):
    """Notes how each job of a sweep fares; Hydra calls it, with every launcher."""

    folder: Path | None = None  # of the sweep that this process has started
    resumed = False  # whether it resumes that sweep

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        if is_worker:
            return
        SweepNotes.folder = Path(config.hydra.sweep.dir)
        if not SweepNotes.resumed:
            (SweepNotes.folder / "summary.csv").unlink(missing_ok=True)  # an earlier sweep's
            keep_overrides(config.hydra)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        error = job_return._return_value  # `return_value` raises it
        if config.hydra.mode != RunMode.MULTIRUN or is_worker or isinstance(error, FolderBusy):
            return
        if job_return.status == JobStatus.COMPLETED:
            write_note(config.hydra, "finished")
        elif isinstance(error, Pruned):
            write_note(config.hydra, "pruned", one_line(error))
        else:
            name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            write_note(config.hydra, "failed", name + one_line(error))


@contextlib.contextmanager
def summarised(resumed: bool = False) -> Iterator[None]:
    """Summarise the sweep that ends within, if one does; resumed: whether it resumes an earlier one.

    Not in Hydra's `on_multirun_end`, which is not called if a job failed or was interrupted.
    """
    SweepNotes.folder, SweepNotes.resumed = None, resumed
    try:
        yield
    finally:
        folder = SweepNotes.folder
        jobs = read_jobs(folder) if folder else []
        if folder and jobs:
            write_csv(jobs, folder / "summary.csv")
            print(describe(jobs, folder), flush=True)
        elif folder and not resumed:  # a mistake in what all jobs share
            shutil.rmtree(folder / NOTES, ignore_errors=True)
            (folder / "multirun.yaml").unlink(missing_ok=True)


def read_jobs(folder: Path) -> list[dict]:
    """The sweep's jobs as noted, with the figures of finished ones; best first, those without a result last."""
    jobs = [json.loads(file.read_text()) for file in folder.glob(f"{NOTES}/*.json")]
    for job in jobs:
        file, found = RunFolder(folder / job["folder"]).summary, {}
        if job["status"] == "finished" and file.is_file():  # with another status it would be an earlier sweep's
            found = json.loads(file.read_text())
        job["figures"] = {name: found.get(name) for name in FIGURES}
    return sorted(
        jobs, key=lambda job: (rank(job["figures"]["val/acc"]), rank(job["figures"]["val/loss"], 1), job["job"])
    )


def rank(value: float | None, sign: int = -1) -> float:
    """A key that sorts the highest (sign 1: the lowest) first, and non-numbers last."""
    return math.inf if value is None or math.isnan(value) else sign * value


def write_csv(jobs: list[dict], path: Path) -> None:
    """A row for each job, with all its overrides, written atomically."""
    rows = [
        {"job": job["job"], "status": job["status"], **job["overrides"], **job["figures"]}
        | {"error": job["error"], "folder": job["folder"]}
        for job in jobs
    ]
    overrides = dict.fromkeys(key for job in jobs for key in job["overrides"])
    with atomic_write(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["job", "status", *overrides, *FIGURES, "error", "folder"])
        writer.writeheader()
        writer.writerows(rows)


def describe(jobs: list[dict], folder: Path) -> str:
    """The summary as text: tables of the jobs and over their seeds, what all share, what failed, what to do next."""
    keys = dict.fromkeys(key for job in jobs for key in job["overrides"])
    shared = {
        key: jobs[0]["overrides"].get(key) for key in keys if len({job["overrides"].get(key) for job in jobs}) == 1
    }
    differing = [key for key in keys if key not in shared]
    lines = [f"sweep of {len(jobs)} job{'s' * (len(jobs) > 1)}, best validation accuracy first"]
    if shared:
        lines.append("all: " + " ".join(f"{key}={value}" for key, value in shared.items()))
    lines.append(format_table(["job", *differing, "val/acc", "val/loss", "time", "epochs"], job_rows(jobs, differing)))
    lines += [f"job {job['job']} failed: {job['error']}" for job in jobs if job["status"] == "failed"]
    settings = [key for key in differing if key != "seed"]
    if groups := seed_rows(jobs, settings):
        lines += ["validation accuracy over seeds", format_table([*settings, "mean", "sd", "n"], groups)]
    own = {(folder / job["folder"]).resolve() for job in jobs}
    others = sum(file.parent.parent.resolve() not in own for file in folder.glob("**/.hydra/overrides.yaml"))
    if others:
        lines.append(f"{others} more in {shown(folder)}, from an earlier sweep: not in this table")
    lines.append("next")
    if any(job["status"] == "finished" for job in jobs):
        lines.append(f"  test and compare      python evaluate.py {shlex.quote(f'runs=[{quoted(shown(folder))}]')}")
    if any(job["status"] != "finished" for job in jobs):
        lines.append(f"  the other jobs        {RunFolder(folder).resume_command}")
    lines.append(f"  the table             {shown(folder / 'summary.csv')}")
    return "\n".join(lines)


def job_rows(jobs: list[dict], keys: Sequence[str]) -> list[list[str]]:
    """Cells of the jobs' table: number, overrides, figures or, in their place, the status."""
    rows = []
    for job in jobs:
        acc, loss, seconds, epochs = (job["figures"][name] for name in FIGURES)
        time = "" if seconds is None else str(timedelta(seconds=round(seconds)))
        figures = [job["status"]] if acc is None else [f"{acc:.4f}", f"{loss:.4f}", time, str(epochs)]
        rows.append([str(job["job"]), *(job["overrides"].get(key, "") for key in keys), *figures])
    return rows


def seed_rows(jobs: list[dict], keys: Sequence[str]) -> list[list[str]]:
    """Cells of the table over seeds: overrides, mean, standard deviation and number of results; none for one seed."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for job in jobs:
        acc = job["figures"]["val/acc"]
        results = groups.setdefault(tuple(job["overrides"].get(key, "") for key in keys), [])
        results += [acc] if math.isfinite(rank(acc)) else []
    if len(groups) == len(jobs):
        return []
    rows = []
    for setting, accs in sorted(groups.items(), key=lambda item: rank(statistics.fmean(item[1]) if item[1] else None)):
        mean = f"{statistics.fmean(accs):.4f}" if accs else ""
        rows.append([*setting, mean, f"{statistics.stdev(accs):.4f}" if len(accs) > 1 else "", str(len(accs))])
    return rows


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns; overlong cells are cut."""
    cells = [[cell if len(cell) <= WIDTH else f"{cell[: WIDTH - 3]}..." for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells if column < len(row)) for column in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in cells)
    return "\n".join(f"  {line}".rstrip() for line in lines)
