"""The result of a sweep, best job first: a table printed at its end, `summary.csv` and the page `sweep.html`.

Each job's process records that it began and how it ended, in the sweep's `.jobs/`, since a failed one may leave no
folder; the figures come from its `run.json`. Imports nothing heavy: the command line waits for it.
"""

import contextlib
import csv
import json
import logging
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from cifar10.errors import FolderBusy, Pruned, UserError, cause_of, one_line
from cifar10.files import atomic_write
from cifar10.processes import is_worker
from cifar10.report.numbers import UNKNOWN, rounded
from cifar10.report.sweep.jobs import SEED, Job, Sweep
from cifar10.run_folder import RunFolder
from cifar10.shell import program, quoted, shown
from cifar10.sweeps.jobs import NOTES, OVERRIDES, PLAN, keep_overrides, write_note
from cifar10.sweeps.plan import objectives_of, read_plan
from cifar10.sweeps.study import is_search
from cifar10.untrusted import fits, leaves

log = logging.getLogger(__name__)

FIGURES = ("val/acc", "val/loss", "seconds", "epochs")  # of run.json
WIDTH = 32  # of a printed override, in characters
PAGE, EVERY = "sweep.html", 30.0  # seconds between two versions of it while the sweep runs
NOTE = {"job": int, "status": str, "error": str, "overrides": dict, "folder": str}


class SweepNotes(Callback):
    """Notes how each job of a sweep fares; Hydra calls it, with every launcher."""

    folder: Path | None = None  # of the sweep that this process has started
    resumed = False  # whether it resumes that sweep

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        SweepNotes.folder = Path(config.hydra.sweep.dir)
        if not SweepNotes.resumed:
            for file in ("summary.csv", PAGE):  # an earlier sweep's
                (SweepNotes.folder / file).unlink(missing_ok=True)
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
        folder = Path(config.hydra.sweep.dir)
        written = [file.stat().st_mtime for file in (folder / NOTES / OVERRIDES, folder / PAGE) if file.is_file()]
        if written and time.time() - max(written) > EVERY:
            write_page(folder)


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
        sweep = read_sweep(folder) if folder else None
        if folder and sweep and sweep.jobs:
            write_csv(sweep, folder / "summary.csv")
            print(describe(sweep, folder), flush=True)
            write_page(folder)
        elif folder and not resumed:  # a mistake in what all jobs share
            shutil.rmtree(folder / NOTES, ignore_errors=True)
            (folder / "multirun.yaml").unlink(missing_ok=True)


def read_sweep(folder: Path) -> Sweep:
    """The sweep as noted in its folder, with the figures of finished jobs; UserError for a damaged note."""
    plan = read_plan(folder / NOTES / PLAN)
    jobs = [read_job(folder, file) for file in sorted(folder.glob(f"{NOTES}/*.json"))]
    sweep = Sweep(shown(folder), jobs, objectives_of(plan), plan.jobs)
    finished = [setting for setting in sweep.settings if any(job.status == "finished" for job in setting.jobs)]
    if finished:
        best = " best=3" if len(sweep.ranked) > 3 else ""
        sweep.commands["test and compare"] = (
            f"{program('python')} evaluate.py {shlex.quote(f'runs=[{quoted(sweep.name)}]')}{best}"
        )
    if finished and is_search(folder):
        left_out = ("sweep", SEED, "callbacks.pruning")  # what belongs to the search
        kept = [(key, value) for key, value in finished[0].jobs[0].overrides.items() if not key.startswith(left_out)]
        own = " ".join(shlex.quote(f"{key}={value}") for key, value in kept)
        sweep.commands["best, other seeds"] = f"{program('python')} train.py -m {own} seed=1,2,3"
    if sweep.left or sweep.of_status("failed"):
        sweep.commands["the rest"] = RunFolder(folder).resume_command
    return sweep


def read_job(folder: Path, file: Path) -> Job:
    """A job from its note, its run.json and its metrics.csv; those of an earlier sweep in this folder do not count."""
    try:
        note = json.loads(file.read_text())
        if not fits(note, NOTE) or not NOTE.keys() <= note.keys():
            raise ValueError("not a job's note")
        run = RunFolder(folder / note["folder"])
        begun = note["status"] != "failed" or run.metrics.is_file()
        summary = {}
        if note["status"] == "finished" and run.summary.is_file():
            summary = json.loads(run.summary.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: the job cannot be read ({cause_of(error)})") from error
    numbers: dict[str, float] = {key: value for key, value in leaves(summary) if isinstance(value, int | float)}
    rows: list[dict[str, float]] = []
    with contextlib.suppress(UserError):  # a page without its curve is better than none
        rows = run.read_metrics() if begun else []
    return Job(note["job"], note["status"], {key: str(value) for key, value in note["overrides"].items()},
               note["error"], note["folder"], numbers, rows, str(summary.get("hardware", "")))  # fmt: skip


def write_page(folder: Path) -> None:
    """Draw the page; one that cannot be drawn must not cost a sweep its result."""
    try:
        from cifar10.report.sweep import page  # takes a second

        page.write(folder / PAGE, read_sweep(folder))
    except UserError as error:
        log.warning(error)
    except Exception:
        log.exception(f"{shown(folder / PAGE)} could not be drawn")


def write_csv(sweep: Sweep, path: Path) -> None:
    """A row for each job, with all its overrides and validation figures, written atomically."""
    found = sorted({key for job in sweep.jobs for key in job.figures if key.startswith("val/")})
    figures = list(dict.fromkeys([*(objective.name for objective in sweep.objectives), *FIGURES, *found]))
    rows = [
        {"job": job.number, "status": job.status, **job.overrides, **{name: job.figures.get(name) for name in figures}}
        | {"error": job.reason, "folder": job.folder}
        for job in sweep.best_first
    ]
    overrides = dict.fromkeys(key for job in sweep.jobs for key in job.overrides)
    with atomic_write(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["job", "status", *overrides, *figures, "error", "folder"])
        writer.writeheader()
        writer.writerows(rows)


def describe(sweep: Sweep, folder: Path) -> str:
    """The summary as text: tables of the jobs and over their seeds, what all share, what failed, what to do next."""
    jobs, objective = sweep.best_first, sweep.objective
    order = f"{objective.wanted} {objective.name} first"
    if sweep.unvalidated and not sweep.ranked:
        order = f"without validation images, so none has a {objective.name}"
    lines = [f"sweep of {len(jobs)} job{'s' * (len(jobs) > 1)}, {order}"]
    if sweep.shared:
        lines.append("all: " + " ".join(f"{key}={value}" for key, value in sweep.shared.items()))
    names = list(dict.fromkeys([*(each.name for each in sweep.objectives), "val/acc", "val/loss"]))
    lines.append(format_table(["job", *sweep.differing, *names, "time", "epochs"], job_rows(sweep, names)))
    reasons: dict[tuple[str, str], list[str]] = {}
    for job in sweep.of_status("failed", "pruned"):
        reasons.setdefault((job.status, job.reason), []).append(str(job.number))
    lines += [f"job{'s' * (len(numbers) > 1)} {', '.join(numbers)} {status}: {reason}"
              for (status, reason), numbers in reasons.items()]  # fmt: skip
    if len(sweep.settings) < len(jobs) and not (sweep.unvalidated and not sweep.ranked):
        lines += [f"{objective.name} over seeds", format_table([*sweep.keys, "mean", "sd", "n"], seed_rows(sweep))]
    own = {(folder / job.folder).resolve() for job in jobs}
    others = sum(file.parent.parent.resolve() not in own for file in folder.glob("**/.hydra/overrides.yaml"))
    if others:
        lines.append(f"{others} more in {shown(folder)}, from an earlier sweep: not in this table")
    next_steps = sweep.commands | {
        "the table": shown(folder / "summary.csv"), "the page": shown(folder / PAGE)
    }  # fmt: skip
    return "\n".join([*lines, "next", *(f"  {what:<20}  {command}" for what, command in next_steps.items())])


def job_rows(sweep: Sweep, names: Sequence[str]) -> list[list[str]]:
    """Cells of the jobs' table: number, overrides, figures or, in their place, the status."""
    rows = []
    for job in sweep.best_first:
        seconds = job.figures.get("seconds")
        time = "" if seconds is None else str(timedelta(seconds=round(seconds)))
        figures = [job.status]
        if job.figures:
            found = [job.figures.get(name) for name in names]
            figures = [
                UNKNOWN if one is None else f"{one:.4f}" if abs(one) < 1000 else f"{one:.4g}" for one in found
            ] + [
                time,
                str(job.figures.get("epochs", "")),
            ]
        rows.append([str(job.number), *(job.overrides.get(key, "") for key in sweep.differing), *figures])
    return rows


def seed_rows(sweep: Sweep) -> list[list[str]]:
    """Cells of the table over seeds: overrides, mean, standard deviation and number of results."""
    rows = []
    for setting in sweep.settings:
        found = setting.spread(sweep.objective.name) or {"mean": None, "std": None, "n": 0}
        figures = ["" if found[key] is None else f"{found[key]:.4f}" for key in ("mean", "std")]
        rows.append([*setting.values.values(), *figures, str(found["n"])])
    return rows


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns; overlong cells are cut, and numbers of many digits rounded."""
    rows = [[rounded(cell) for cell in row] for row in rows]
    cells = [[cell if len(cell) <= WIDTH else f"{cell[: WIDTH - 3]}..." for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells if column < len(row)) for column in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in cells)
    return "\n".join(f"  {line}".rstrip() for line in lines)
