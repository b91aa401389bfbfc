"""The picture that says most: how good, at what, and at what price."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar10.report.figures.classes import draw_classes, row_height
from cifar10.report.figures.comparison import draw_seeds, mean_of
from cifar10.report.figures.cost import TIMES, draw_cost, is_known
from cifar10.report.figures.style import (
    DOUBLE,
    GREY,
    SMALL,
    cut,
    floor_of,
    group_style,
    in_style,
    numbered,
    percent,
    percent_ticks,
)

MOST_CLASSES = 20  # the ten that gain most and the ten that gain least, of more


@in_style
def overview_figure(groups: Sequence[Mapping], class_names: Sequence[str]) -> Figure:
    """Draw accuracy, recall of each class and, where it is known of any group, accuracy against training time.

    groups: "name", "accs" (one a seed), "recall" (C,) and "seconds" of training, or None.
    """
    names, groups = _most_telling(class_names, groups)
    points = [{"acc": mean_of(group["accs"]), "index": i, **group} for i, group in numbered(groups)]
    timed = any(is_known(point.get("seconds")) for point in points)
    height = max(2.9, 0.9 + row_height(len(names)) * len(names), 0.6 + 0.6 * len(groups))
    figure = Figure(figsize=(DOUBLE, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    panels = figure.subplots(1, 3 if timed else 2, width_ratios=(1.15, 1.5, 1.2) if timed else (1, 1.5))
    _draw_accuracy(panels[0], points)
    draw_classes(panels[1], names, [dict(point, values=point["recall"]) for point in points], 1.0)
    which = "each class" if len(names) == len(class_names) else f"{len(names)} of {len(class_names)} classes"
    panels[1].set_xlabel(f"recall of {which}{'; gain in points' if len(groups) > 1 else ''}")
    if timed:
        draw_cost(panels[2], points, "seconds", TIMES, 1.2)
        percent_ticks(panels[2].yaxis)
        panels[2].set(xlabel="training time", ylabel="accuracy")
    return figure


def _most_telling(class_names: Sequence[str], groups: Sequence[Mapping]) -> tuple[Sequence[str], Sequence[Mapping]]:
    """At most twenty classes: those whose recall gains most and least."""
    if len(class_names) <= MOST_CLASSES:
        return class_names, groups
    recall = np.array([group["recall"] for group in groups], dtype=float)
    gain = recall[-1] - recall[0] if len(groups) > 1 else recall[0]
    order = [label for label in np.argsort(gain, kind="stable") if np.isfinite(gain[label])]
    kept = sorted({*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]})
    return [class_names[i] for i in kept], [dict(group, recall=np.asarray(group["recall"])[kept]) for group in groups]


def _draw_accuracy(axes: Axes, points: Sequence[Mapping]) -> None:
    """A row for each group: marker and name, the value in large, the seeds."""
    size = 18 if len(points) <= 3 else 11
    for row, point in enumerate(points):
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        key = {**group_style(point["index"]), "markersize": 6, "clip_on": False}
        axes.plot(0.02, row - 0.33, **key, transform=axes.get_yaxis_transform())
        axes.annotate(cut(point["name"], 1.4), (0.07, row - 0.33), xytext=(2, 0), fontsize=SMALL, va="center", **place)
        axes.annotate(
            percent(point["acc"]), (0, row), xytext=(0, 0), fontsize=size, va="center", weight="bold", **place
        )
        axes.axhline(row + 0.3, color=GREY, alpha=0.3, linewidth=0.8)
        draw_seeds(axes, point["accs"], row + 0.3, point["index"], size=8)
    accs = [acc for point in points for acc in point["accs"]]
    floor = floor_of(accs)
    axes.set(xlim=(floor, 1), ylim=(len(points) - 0.5, -0.5), xticks=(floor, (floor + 1) / 2, 1), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("accuracy; a dot a seed")
    percent_ticks(axes.xaxis)
