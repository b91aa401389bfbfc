"""What training looked like, epoch by epoch, of one run or of the seeds of several models."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar10.report.figures import style

Rows = Sequence[Mapping[str, Any]]
TRAINING = {"linestyle": "--", "linewidth": 0.9}
SWITCH = {"linestyle": ":", "linewidth": 1.2}
RING = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": style.GREY}


@style.in_style
def learning_curves_figure(groups: Sequence[Mapping], width: float = style.DOUBLE) -> Figure:
    """Draw validation accuracy and loss of each model: mean and range over seeds; training as a dashed line.

    groups: "name", "runs" and "switch_epoch" (the first epoch, from 0, of phase 2, or None). A run is its rows, one an
    epoch, with `epoch` (from 0; drawn from 1) and `train/loss`, `val/loss`, `train/acc`, `val/acc`, each of which may
    be missing, None or NaN: a gap. Runs may end at different epochs. A model's only run has its epoch of lowest
    `val/loss` ringed.
    """
    last = max((row["epoch"] for group in groups for rows in group["runs"] for row in rows), default=None)
    if last is None:
        raise ValueError("groups: there is no epoch to draw")
    figure, panels = style.next_to_each_other(2, width, 3.0)
    for axes, metric, label in zip(panels, ("acc", "loss"), ("accuracy", "loss (nats)"), strict=True):
        for index, group in style.numbered(groups):
            colour = style.group_colour(index)
            epochs, mean, low, high = _over_seeds(group["runs"], f"val/{metric}")
            every = max(1, len(epochs) // 6)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
            last_marked = slice((len(epochs) - 1) % every, None, every)
            axes.plot(epochs, mean, **style.group_style(index), markevery=last_marked, clip_on=False)
            axes.plot(epochs, _over_seeds(group["runs"], f"train/{metric}")[1], color=colour, **TRAINING)
            loss = _over_seeds(group["runs"], "val/loss")[1]
            if len(group["runs"]) == 1 and np.isfinite(loss).any():
                axes.plot(epochs[np.nanargmin(loss)], mean[np.nanargmin(loss)], **RING, clip_on=False)
            switch = group.get("switch_epoch")
            if switch is not None and 0 < switch <= last:
                axes.axvline(switch + 0.5, color=colour, **SWITCH)
        _dress(axes, int(last) + 1, label)
    style.percent_ticks(panels[0].yaxis)
    _explain(figure, groups, panels[0].lines)
    return figure


def _explain(figure: Figure, groups: Sequence[Mapping], lines: Sequence[Line2D]) -> None:
    handles, names = style.group_handles(groups), [group["name"] for group in groups]
    looks = {"training": TRAINING, "lowest validation loss": RING, "phase 2: fine-tuning starts": SWITCH}
    drawn = {(line.get_linestyle(), line.get_markersize()) for line in lines}
    for name, look in looks.items():
        handle = Line2D([], [], color=style.GREY, **look)
        if (handle.get_linestyle(), handle.get_markersize()) in drawn:
            handles.append(handle)
            names.append(name)
    style.legend_below(figure, handles, names)


def _over_seeds(runs: Sequence[Rows], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Epochs from 1, and the mean, least and greatest value of the seeds that have one there."""
    length = max((int(row["epoch"]) + 1 for rows in runs for row in rows), default=0)
    table = np.full((max(1, len(runs)), length), math.nan)
    for values, rows in zip(table, runs, strict=False):
        for row in rows:
            values[int(row["epoch"])] = math.nan if row.get(key) is None else row[key]
    known = np.isfinite(table)
    count = known.sum(axis=0)
    mean = np.where(known, table, 0).sum(axis=0) / np.where(count, count, math.nan)
    return np.arange(1, length + 1), mean, np.fmin.reduce(table), np.fmax.reduce(table)


def _dress(axes: Axes, last: int, name: str) -> None:
    step = next(step for power in range(9) for step in (10**power, 5 * 10**power) if last <= 12 * step)
    axes.set_xlim(0.5, last + 0.5)
    axes.margins(y=0.08)
    axes.set_xticks(sorted({1, *range(step, last + 1, step)}))
    axes.set(xlabel="epoch", ylabel=name)
