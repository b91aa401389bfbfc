"""The figure that says most: how good, at what, and at what price."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar10.report.figures import style
from cifar10.report.figures.accuracy import draw_seeds
from cifar10.report.figures.classes import draw_classes, row_height
from cifar10.report.figures.cost import TIMES, draw_cost, is_known
from cifar10.report.numbers import SPACE, number, percent

MOST_CLASSES = 20  # the ten that gain most and the ten that gain least, of more


@style.in_style
def overview_figure(groups: Sequence[Mapping], class_names: Sequence[str], width: float = style.DOUBLE) -> Figure:
    """Draw accuracy, recall of each class and, where it is known of any group, accuracy against training time.

    groups: "name", "accs" (one a seed), "acc" ("mean" and "std", which may be None), "recall" (C,) and
    "train_seconds" ("mean" and "std"), or None.
    """
    names, groups = _most_telling(class_names, groups)
    groups = [dict[str, Any](group, index=index) for index, group in style.numbered(groups)]
    timed = any(is_known(group["train_seconds"]) for group in groups)
    rows, bars = row_height(len(names)) * len(names), 0.6 * len(groups)
    if width > style.SINGLE:
        figure = Figure(figsize=(width, max(2.9, 0.9 + rows, 0.6 + bars)), layout="constrained")
        panels = figure.subplots(1, 2 + timed, width_ratios=(1.15, 1.5, 1.2)[: 2 + timed])
    else:
        heights = (0.5 + bars, 0.6 + rows, 2.2)[: 2 + timed]
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        panels = figure.subplots(2 + timed, 1, height_ratios=heights)
    figure.set_layout_engine("constrained", wspace=0.06, hspace=0.06)
    # one scale of accuracy in both panels
    limits = style.fraction_limits([acc for group in groups for acc in (*group["accs"], *_ends(group["acc"]))])
    _draw_accuracy(panels[0], groups, limits)
    draw_classes(panels[1], names, [dict(group, values=group["recall"]) for group in groups], 1.0)
    which = "each class" if len(names) == len(class_names) else f"{len(names)} of {len(class_names)} classes"
    panels[1].set_xlabel(f"recall of {which}{'; gain in points' if len(groups) > 1 else ''}")
    if timed:
        draw_cost(panels[2], groups, "train_seconds", TIMES, 1.2 if width > style.SINGLE else 2.5)
        style.percent_ticks(panels[2].yaxis)
        panels[2].set(xlabel="training time", ylabel="accuracy", ylim=limits)
    return figure


def _ends(spread: Mapping) -> tuple[float, float]:
    return spread["mean"] - (spread["std"] or 0), spread["mean"] + (spread["std"] or 0)


def _most_telling(class_names: Sequence[str], groups: Sequence[Mapping]) -> tuple[Sequence[str], Sequence[Mapping]]:
    """At most twenty classes: those whose recall gains most and least."""
    if len(class_names) <= MOST_CLASSES:
        return class_names, groups
    recall = np.array([group["recall"] for group in groups], dtype=float)
    gain = recall[-1] - recall[0] if len(groups) > 1 else recall[0]
    order = [label for label in np.argsort(gain, kind="stable") if np.isfinite(gain[label])]
    kept = sorted({*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]})
    names = [class_names[int(i)] for i in kept]
    return names, [{**group, "recall": np.asarray(group["recall"])[kept]} for group in groups]


def _draw_accuracy(axes: Axes, groups: Sequence[Mapping], limits: tuple[float, float]) -> None:
    """A row for each group: marker and name, the value in large, its spread, the seeds."""
    size = 14 if len(groups) <= 3 else 11
    for row, group in enumerate(groups):
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        key = {**style.group_style(group["index"]), "markersize": 6, "clip_on": False}
        axes.plot(0.02, row - 0.33, **key, transform=axes.get_yaxis_transform())
        axes.annotate(style.cut(group["name"], 1.4), (0.07, row - 0.33), xytext=(2, 0), fontsize=style.SMALL, **place)
        mean, std = group["acc"]["mean"], group["acc"]["std"]
        value = axes.annotate(percent(mean), (0, row), xytext=(0, 0), fontsize=size, weight="bold", **place)
        if std is not None:
            text = f"±{SPACE}{number(100 * std, 2)}"
            axes.annotate(text, (1, 0.5), xycoords=value, xytext=(5, 0), textcoords="offset points", va="center")
        axes.axhline(row + 0.3, color=style.GREY, alpha=0.3, linewidth=0.8)
        draw_seeds(axes, group["accs"], row + 0.3, group["index"], size=8)
    axes.set(xlim=limits, ylim=(len(groups) - 0.5, -0.5), yticks=[])
    axes.locator_params(axis="x", nbins=3)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("accuracy")
    style.percent_ticks(axes.xaxis)
