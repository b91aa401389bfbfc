"""What the page about a sweep says, section by section; each yields blocks, or none."""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from cifar10.report import figures
from cifar10.report.document import Block, Figure, Paragraph, Table
from cifar10.report.numbers import (
    SPACE,
    UNKNOWN,
    count,
    duration,
    engineering,
    number,
    percent,
    plural,
    printable,
    rounded,
    spread_of,
)
from cifar10.report.sweep.importance import FEWEST, importances
from cifar10.report.sweep.jobs import Job, Setting, Sweep, numbers_of, written

MOST_ROWS = 25  # of a table
MOST_AXES = 8
HIGHLIGHTED = 3  # jobs among the learning curves


def leaderboard(sweep: Sweep) -> Iterator[Block]:
    """A row for each setting with a result."""
    if sweep.shared:
        yield Paragraph(f"All jobs: {written(sweep.shared)}.")
    if not sweep.ranked:
        return
    several = any(len(setting.results(sweep.objective.name)) > 1 for setting in sweep.ranked)
    names = [objective.name for objective in sweep.objectives]
    front = [*map(id, sweep.front)] if len(names) > 1 else []
    header = ["rank", *names, *(["seeds"] if several else []), *map(printable, sweep.keys), "time", "epochs", "jobs"]
    rows = []
    for rank, setting in enumerate(sweep.ranked[:MOST_ROWS], start=1):
        spreads = [setting.spread(name) for name in names]
        rows.append([
            f"{rank}{f'{SPACE}◆' if id(setting) in front else ''}",
            *(spread_of(spread, figure) for spread in spreads),
            *([str(spreads[0]["n"])] if several else []),
            *(printable(rounded(value)) or UNKNOWN for value in setting.values.values()),
            duration(mean_of(setting, "seconds")), number(mean_of(setting, "epochs"), 0), jobs_of(setting),
        ])  # fmt: skip
    yield Table(header, rows)
    notes = ["± is the standard deviation over seeds; time and epochs are means of a job."] * several
    notes += ["◆ is on the Pareto front: no other setting is at least as good in everything and better in something."
              ] * bool(front)  # fmt: skip
    notes += [f"The first {MOST_ROWS} of {len(sweep.ranked)}; all jobs are in summary.csv."] * (
        len(sweep.ranked) > MOST_ROWS
    )
    if notes:
        yield Paragraph(" ".join(notes), "note")


def figure(value: float | None) -> str:
    """A metric, or a number of operations."""
    return number(value) if value is None or abs(value) < 1000 else engineering(value, "").rstrip()


def mean_of(setting: Setting, name: str) -> float | None:
    known = [value for job in setting.jobs if job.status == "finished" and (value := getattr(job, name))]
    return statistics.fmean(known) if known else None


def jobs_of(setting: Setting) -> str:
    """Numbers, those that have not finished with what became of them."""
    return ", ".join(f"{job.number}{'' if job.status == 'finished' else f' ({job.status})'}" for job in setting.jobs)


def front(sweep: Sweep) -> Iterator[Block]:
    """Of a sweep with several objectives."""
    names = [objective.name for objective in sweep.objectives]
    points = [
        {"values": [setting.mean(name) for name in names], "front": setting in sweep.front,
         "name": numbers_of(setting.jobs)}
        for setting in sweep.ranked
    ]  # fmt: skip
    points = [point for point in points if None not in point["values"]]
    if len(names) < 2 or not points:
        return
    wanted = ", ".join(f"{objective.name} ({objective.wanted})" for objective in sweep.objectives)
    yield Figure("front", f"Every setting's {wanted}: those on the Pareto front, with their job numbers, are beaten by"
                 " none in everything. Which of them is best depends on what you can spend.",
                 partial(figures.front_figure, points, names))  # fmt: skip


def parallel(sweep: Sweep) -> Iterator[Block]:
    """Parallel coordinates of what differs."""
    objective = sweep.objective
    drawn = [setting for setting in sweep.settings
             if setting in sweep.ranked or any(job.status == "pruned" for job in setting.jobs)]  # fmt: skip
    if len(sweep.ranked) < 2 or not sweep.keys:
        return
    keys = sweep.keys[:MOST_AXES]
    settings = {printable(key): [printable(rounded(setting.values[key])) for setting in drawn] for key in keys}
    results = [float("nan") if (mean := setting.mean(objective.name)) is None else mean for setting in drawn]
    mean = ", the mean over seeds" if any(len(setting.results(objective.name)) > 1 for setting in sweep.ranked) else ""
    caption = f"Each line is one combination of values, from axis to axis; it ends at its {objective.name}{mean}. Where"
    caption += " the blue lines, the best, meet, a value is good; where they spread out, it matters little."
    if len(keys) < len(sweep.keys):
        caption += f" The first {len(keys)} of {len(sweep.keys)} settings."
    if len(drawn) > len(sweep.ranked):
        caption += " Dotted: pruned, without a result."
    yield Figure("settings", caption, partial(figures.parallel_figure, settings, results, objective.name,
                                              objective.mode == "min"))  # fmt: skip


def importance(sweep: Sweep) -> Iterator[Block]:
    """fANOVA over the finished jobs, or why there is none."""
    name = sweep.objective.name
    jobs = [job for job in sweep.jobs if job.value(name) is not None]
    if not sweep.differing or not jobs:
        return
    settings = {printable(key): [job.overrides.get(key, "") for job in jobs] for key in sweep.differing}
    try:
        shares = importances(settings, [value for job in jobs if (value := job.value(name)) is not None])
    except ImportError:
        yield Paragraph("Which settings matter most is computed by Optuna, which is not installed:"
                        " pip install -e '.[search]'", "note")  # fmt: skip
    except ValueError as error:
        yield Paragraph(f"Which settings matter most cannot be said: {error}. It takes at least {FEWEST} finished jobs"
                        " and two settings that differ.", "note")  # fmt: skip
    else:
        joint = max(0.0, 1 - sum(shares.values()))
        caption = f"How much of the variance of {name} among {len(jobs)} finished jobs each setting explains by itself"
        caption += f" (fANOVA, Hutter et al. 2014); the other {percent(joint, 0)} are joint effects. It holds within"
        caption += " the values that were tried, and is rough with few jobs."
        if "seed" in shares:
            caption += " The seed is chance: what explains no more than it does may well be chance, too."
        yield Figure("importance", caption, partial(figures.importance_figure, shares))


def curves(sweep: Sweep) -> Iterator[Block]:
    """The objective by epoch, of every job that has a metrics.csv."""
    names = [*(objective.name for objective in sweep.objectives), "val/acc", "val/loss", "train/acc", "train/loss"]
    metric = next((name for name in names if any(points_of(job, name)[0] for job in sweep.jobs)), None)
    if metric is None:
        return
    name = sweep.objective.name
    best = [min(setting.jobs, key=lambda job: sweep.objective.key(job.value(name))) for setting in sweep.ranked]
    place = {job.number: place for place, job in enumerate(best[:HIGHLIGHTED])} if len(best) > 1 else {}
    drawn = []
    for job in sweep.jobs:
        epochs, values = points_of(job, metric)
        if epochs:
            result = figure(job.value(name))
            drawn.append({"epochs": epochs, "values": values, "status": job.status, "place": place.get(job.number),
                          "name": f"job {job.number}: {name} {result}"})  # fmt: skip
    caption = f"{metric} of {plural(len(drawn), 'job')}, epoch by epoch."
    if not sweep.unvalidated:
        caption += " A job's result is that of best.ckpt, the epoch that callbacks.checkpoint.monitor chose, which need"
        caption += " not be its highest point."
    if any(len(setting.jobs) > 1 for setting in sweep.ranked):
        caption += " Named are the best seeds of the best settings."
    if any(job["status"] == "pruned" for job in drawn):
        caption += " A cross is where a job was pruned: would it have caught up?"
    yield Figure("curves", caption, partial(figures.job_curves_figure, drawn, metric))


def points_of(job: Job, metric: str) -> tuple[list[int], list[float]]:
    """Epochs from 1, and the metric's values."""
    points = [(int(row["epoch"]) + 1, row[metric]) for row in job.rows if math.isfinite(row.get(metric, math.nan))]
    return [epoch for epoch, _ in points], [value for _, value in points]


def ended_early(sweep: Sweep) -> Iterator[Block]:
    """Which jobs were pruned or failed, when and why."""
    pruned, failed = sweep.of_status("pruned"), sweep.of_status("failed")
    said = [f"{plural(len(failed), 'job')} failed."] if failed else []
    if pruned:
        epochs = Counter(job.epochs for job in pruned)
        when = ", ".join(f"{times} after {plural(epoch, 'epoch')}" for epoch, times in sorted(epochs.items()))
        said.append(f"{plural(len(pruned), 'job')} pruned: {when}.")
    if not said:
        return
    yield Paragraph(" ".join(said))
    shown = [*failed, *pruned][:MOST_ROWS]
    rows = [
        [str(job.number), f"{job.status} after {plural(job.epochs, 'epoch')}, {duration(job.seconds)}"
         if job.rows else f"{job.status} at once", printable(job.reason) or UNKNOWN,
         written({key: job.overrides.get(key, "") for key in sweep.differing})]
        for job in shown
    ]  # fmt: skip
    yield Table(["job", "", "why", "settings"], rows, words=True)
    if len(shown) < len(pruned) + len(failed):
        yield Paragraph(f"The first {len(shown)}; all are in summary.csv.", "note")


def cost(sweep: Sweep) -> Iterator[Block]:
    """Time and epochs by status, and what pruning has saved."""
    rows = []
    for status in ("finished", "pruned", "failed", "unfinished"):
        if jobs := sweep.of_status(status):
            rows.append([status, *totals(jobs)])
    if not rows:
        return
    if len(rows) > 1:
        rows.append(["all", *totals(sweep.jobs)])
    yield Table(["", "jobs", "epochs", "time"], rows)
    hardware = " and ".join(printable(name) for name in dict.fromkeys(job.hardware for job in sweep.jobs) if name)
    yield Paragraph(f"Time is that of training, summed over the jobs{f', on {hardware}' if hardware else ''}; jobs that"
                    " ran side by side took less by the clock, and each of them longer.")  # fmt: skip
    if text := saved(sweep.of_status("finished"), sweep.of_status("pruned")):
        yield Paragraph(text)


def totals(jobs: Sequence[Job]) -> list[str]:
    return [count(len(jobs)), count(sum(job.epochs for job in jobs)), duration(sum(job.seconds for job in jobs))]


def saved(finished: Sequence[Job], pruned: Sequence[Job]) -> str:
    """An estimate of what pruning has saved; empty where there is nothing to estimate it from."""
    known = [job for job in pruned if job.rows and job.seconds]
    lengths = [job.epochs for job in finished if job.epochs]
    if not known or not lengths:
        return ""
    usual = statistics.median(lengths)
    left = [max(0.0, usual - job.epochs) for job in known]
    seconds = sum(epochs * job.seconds / job.epochs for epochs, job in zip(left, known, strict=True))
    spent = sum(job.seconds for job in (*finished, *pruned))
    return (
        f"Pruning has saved an estimated {count(sum(left))} epochs, {duration(seconds)}:"
        f" {percent(seconds / (seconds + spent), 0)} of what the sweep would have taken. The estimate lets each pruned"
        f" job train for {number(usual, 0)} epochs, the median of the finished ones, at its own speed; bad settings"
        " often stop earlier by themselves, so it is rather too high."
    )
