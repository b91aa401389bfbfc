"""What training looked like, epoch by epoch: of one run, or of the seeds of several models."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar10.report.figures.style import (
    DOUBLE,
    GREY,
    PALETTE,
    SMALL,
    group_colour,
    group_handles,
    group_style,
    in_style,
    legend_below,
    next_to_each_other,
    numbered,
    percent_ticks,
    text_inches,
)

PANEL = 2.5  # inches: a little less than the width of one of two panels
CURVES = {"train": ("train", PALETTE["blue"], "o"), "val": ("validation", PALETTE["vermilion"], "s")}
Rows = Sequence[Mapping[str, float | None]]


@in_style
def learning_curves_figure(
    rows: Rows, switch_epoch: int | None = None, title: str = "", width: float = DOUBLE
) -> Figure:
    """Draw loss and accuracy over the epochs, training and validation, with the epoch of lowest `val/loss` ringed.

    rows: one an epoch, with `epoch` (from 0; drawn from 1) and `train/loss`, `val/loss`, `train/acc`, `val/acc`,
    each of which may be missing, None or NaN: a gap. switch_epoch: the first epoch (from 0) of phase 2; its line
    is left out where all rows lie on one side of it.
    """
    if not rows:
        raise ValueError("there is no epoch to draw")
    rows = sorted(rows, key=lambda row: row["epoch"])
    epochs = np.array([int(row["epoch"]) + 1 for row in rows])
    val_loss = _column(rows, "val/loss")
    best = None if np.isnan(val_loss).all() else int(np.nanargmin(val_loss))

    figure, panels = next_to_each_other(2, width, 2.9)
    for axes, metric, name in zip(panels, ("loss", "acc"), ("loss (nats)", "accuracy"), strict=True):
        for stage, (label, colour, marker) in CURVES.items():
            values = _column(rows, f"{stage}/{metric}")
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=label, clip_on=False)
        if best is not None:
            _mark_best(axes, epochs[best], _column(rows, f"val/{metric}")[best])
        _dress(axes, epochs[0], epochs[-1], name)
        if metric == "acc":
            percent_ticks(axes.yaxis)
        if switch_epoch is not None and epochs[0] <= switch_epoch < epochs[-1]:
            _mark_switch(axes, switch_epoch + 0.5)
    if title:
        figure.suptitle(title)
    legend_below(figure, *panels[0].get_legend_handles_labels())
    return figure


@in_style
def learning_curves_comparison_figure(groups: Sequence[Mapping], width: float = DOUBLE) -> Figure:
    """Draw validation accuracy and loss of several models: mean and range over seeds; training as a dashed line.

    groups: "name", "runs" (the rows of each seed, as for `learning_curves_figure`; seeds may end at different epochs)
    and "switch_epoch" (the first epoch, from 0, of phase 2, or None).
    """
    last = max((row["epoch"] for group in groups for rows in group["runs"] for row in rows), default=None)
    if last is None:
        raise ValueError("there is no epoch to draw")
    figure, panels = next_to_each_other(2, width, 3.0)
    for axes, metric, label in zip(panels, ("acc", "loss"), ("accuracy", "loss (nats)"), strict=True):
        for index, group in numbered(groups):
            epochs, mean, low, high = _over_seeds(group["runs"], f"val/{metric}")
            every = max(1, len(epochs) // 6)
            axes.fill_between(epochs, low, high, color=group_colour(index), alpha=0.2, linewidth=0)
            last_marked = slice((len(epochs) - 1) % every, None, every)
            axes.plot(epochs, mean, **group_style(index), markevery=last_marked, clip_on=False)
            epochs, mean, *_ = _over_seeds(group["runs"], f"train/{metric}")
            axes.plot(epochs, mean, color=group_colour(index), linestyle="--", linewidth=0.8)
            switch = group.get("switch_epoch")
            if switch is not None and 0 < switch <= last:
                axes.axvline(switch + 0.5, color=group_colour(index), linestyle=":", linewidth=1.2)
        _dress(axes, 1, int(last) + 1, label)
    percent_ticks(panels[0].yaxis)
    _explain(figure, groups, any(line.get_linestyle() == ":" for line in panels[0].lines))
    return figure


def _explain(figure: Figure, groups: Sequence[Mapping], phases: bool) -> None:
    handles = [*group_handles(groups), Line2D([], [], color=GREY, linestyle="--", linewidth=0.8)]
    names = [*(group["name"] for group in groups), "training, mean of seeds"]
    if phases:
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.2))
        names.append("phase 2: fine-tuning starts")
    legend_below(figure, handles, names)


def _column(rows: Rows, key: str) -> np.ndarray:
    return np.array([math.nan if row.get(key) is None else float(row[key]) for row in rows])


def _over_seeds(runs: Sequence[Rows], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Epochs from 1, and the mean, least and greatest value of the seeds that have one there."""
    length = max((int(row["epoch"]) + 1 for rows in runs for row in rows), default=0)
    table = np.full((max(1, len(runs)), length), math.nan)
    for values, rows in zip(table, runs, strict=False):
        values[[int(row["epoch"]) for row in rows]] = _column(rows, key)
    known = np.isfinite(table)
    count = known.sum(axis=0)
    mean = np.where(known, table, 0).sum(axis=0) / np.where(count, count, math.nan)
    return np.arange(1, length + 1), mean, np.fmin.reduce(table), np.fmax.reduce(table)


def _dress(axes: Axes, first: int, last: int, name: str) -> None:
    count = last - first + 1
    step = next(step for power in range(9) for step in (10**power, 5 * 10**power) if count <= 12 * step)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.margins(y=0.08)
    axes.set_xticks(sorted({int(first), *(epoch for epoch in range(first, last + 1) if epoch % step == 0)}))
    axes.set(xlabel="epoch", ylabel=name)


def _mark_best(axes: Axes, epoch: int, value: float) -> None:
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": GREY, "clip_on": False}
    axes.plot(epoch, value, linestyle="none", label=f"lowest validation loss: epoch {epoch}", **ring)


def _mark_switch(axes: Axes, x: float) -> None:
    axes.axvline(x, color=GREY, linestyle="--", linewidth=1)
    left, right = axes.get_xlim()
    before = (x - left) / (right - left)
    # above the panel, where no curve can be
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "bottom"}
    sides = (("phase 1: head", before, "right", -5), ("phase 2: fine-tuning", 1 - before, "left", 5))
    for text, share, alignment, shift in sides:
        if text_inches(text, SMALL) > share * PANEL:
            text = text.replace(": ", ":\n")
        axes.annotate(text, (x, 1), xytext=(shift, 3), ha=alignment, fontsize=SMALL, color=GREY, **place)
