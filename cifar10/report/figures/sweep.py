"""What a sweep's jobs did epoch by epoch, what mattered, and what the best of several objectives trade off."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from cifar10.report.figures import style
from cifar10.report.numbers import percent

LOOKS = {  # by status
    "finished": {"color": style.GREY, "linewidth": 0.8, "alpha": 0.45},
    "unfinished": {"color": style.GREY, "linewidth": 0.8, "alpha": 0.45, "linestyle": ":"},
    "pruned": {"color": style.PALETTE["orange"], "linewidth": 0.9, "alpha": 0.8, "linestyle": (0, (4, 1.5))},
    "failed": {"color": style.PALETTE["vermilion"], "linewidth": 0.9, "alpha": 0.8, "linestyle": (0, (1, 1))},
}
ENDS = {"pruned": "X", "failed": "P"}
BEST = [style.PALETTE[name] for name in ("blue", "green", "purple")]


@style.in_style
def job_curves_figure(jobs: Sequence[Mapping], metric: str, width: float = style.DOUBLE) -> Figure:
    """Draw a metric against the epoch, a line for each job: those pruned and failed end in a mark, the best stand out.

    jobs: "epochs" (from 1), "values" (of the metric), "status", and "place": 0 to 2 for the three best, else None;
    "name" is what the legend calls one of these.
    """
    figure = Figure(figsize=(width, 3.4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel=metric)
    handles, names = [], []
    for job in sorted(jobs, key=lambda job: -1 if job["place"] is None else 2 - job["place"]):
        look = LOOKS[job["status"]] if job["place"] is None else {"color": BEST[job["place"]], "linewidth": 2}
        ticked = "." if len(job["epochs"]) == 1 else None
        axes.plot(job["epochs"], job["values"], marker=ticked, **look)
        if job["status"] in ENDS and job["place"] is None:
            axes.plot(job["epochs"][-1], job["values"][-1], ENDS[job["status"]], color=look["color"], markersize=5)
    for job in sorted((job for job in jobs if job["place"] is not None), key=lambda job: job["place"]):
        handles.append(Line2D([], [], color=BEST[job["place"]], linewidth=2))
        names.append(job["name"])
    for status in LOOKS:
        if any(job["status"] == status and job["place"] is None for job in jobs):
            handles.append(Line2D([], [], **LOOKS[status], marker=ENDS.get(status), markersize=5))
            names.append("other jobs" if status == "finished" else status)
    axes.set_ylim(*_limits(jobs))
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
    axes.grid()
    style.legend_below(figure, handles, names)
    return figure


@style.in_style
def importance_figure(shares: Mapping[str, float], width: float = style.DOUBLE) -> Figure:
    """Draw a bar for each setting: the share of the variance that it explains, a fraction."""
    figure = Figure(figsize=(width, 0.6 + 0.3 * len(shares)), layout="constrained")
    axes = figure.add_subplot(xlabel="share of the variance")
    axes.barh(range(len(shares)), list(shares.values()), height=0.6, color=style.PALETTE["blue"])
    for row, share in enumerate(shares.values()):
        axes.annotate(percent(share, 0), (share, row), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=style.SMALL)  # fmt: skip
    style.name_rows(axes, list(shares), 0.4 * width)
    axes.set_xlim(0, max(1e-9, *shares.values()) * 1.12)
    style.percent_ticks(axes.xaxis)
    return figure


@style.in_style
def front_figure(points: Sequence[Mapping], objectives: Sequence[str], width: float = style.DOUBLE) -> Figure:
    """Draw the first objective against each other one; the Pareto front is marked and named.

    points: "values" (one an objective), "front" (whether none beats it), "name".
    """
    figure, panels = style.next_to_each_other(len(objectives) - 1, width, 3.4)
    values = np.array([point["values"] for point in points], dtype=float)
    front = np.array([point["front"] for point in points], dtype=bool)
    for column, axes in enumerate(panels, start=1):
        axes.plot(values[~front, column], values[~front, 0], "o", color=style.GREY, alpha=0.6, markersize=4)
        order = np.argsort(values[front, column])
        line = {"color": style.PALETTE["blue"], "linewidth": 1, "markersize": 7}
        if len(objectives) == 2:  # of more, the front is no line
            axes.plot(values[front, 1][order], values[front, 0][order], linestyle="--", **line)
        axes.plot(values[front, column], values[front, 0], "D", **line)
        for point in points:
            if point["front"]:
                axes.annotate(point["name"], (point["values"][column], point["values"][0]), xytext=(5, 5),
                              textcoords="offset points", fontsize=style.SMALL)  # fmt: skip
        known = values[:, column]
        if known.min() > 0 and known.max() >= 10 * known.min():
            axes.set_xscale("log")
        for axis, largest in ((axes.xaxis, known.max()), (axes.yaxis, values[:, 0].max())):
            if largest >= 10_000:
                axis.set_major_formatter(EngFormatter())
        axes.set(xlabel=objectives[column], ylabel=objectives[0])
        axes.margins(0.1)
        axes.grid()
    handles = [Line2D([], [], color=style.PALETTE["blue"], marker="D", linestyle="none", markersize=7),
               Line2D([], [], color=style.GREY, marker="o", linestyle="none", alpha=0.6)]  # fmt: skip
    style.legend_below(figure, handles, ["Pareto front, with job numbers", "other settings"])
    return figure


def _limits(jobs: Sequence[Mapping]) -> tuple[float, float]:
    """Of an axis that shows the best jobs whole and nearly all of the others: one that diverges leaves it."""
    everything = np.concatenate([np.asarray(job["values"], dtype=float) for job in jobs])
    best = [value for job in jobs if job["place"] is not None for value in job["values"]]
    low, high = np.nanquantile(everything, [0.01, 0.99]) if len(everything) > 50 else (
        np.nanmin(everything), np.nanmax(everything))  # fmt: skip
    low, high = min([low, *best]), max([high, *best])
    room = 0.06 * (high - low) or 0.05
    return low - room, high + room
