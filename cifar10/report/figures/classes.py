"""Class by class: how well each is recognised by several models, and what the change from one to another is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from cifar10.report.figures import style
from cifar10.report.numbers import UNKNOWN, number, points

CHANGES = {"better": style.PALETTE["blue"], "worse": style.PALETTE["vermilion"], "interval holds 0": style.GREY}


@style.in_style
def per_class_figure(
    class_names: Sequence[str], groups: Sequence[Mapping], metric: str = "recall", width: float = style.DOUBLE
) -> Figure:
    """Draw each class's value in every group, the classes sorted by their gain from the first group to the last.

    groups: "name" and "values" (C,), fractions, NaN where unknown. metric: what the values are.
    """
    figure = Figure(figsize=(width, 1.05 + row_height(len(class_names)) * len(class_names)), layout="constrained")
    axes = figure.add_subplot(xlabel=f"{metric} of a class")
    draw_classes(axes, class_names, groups, 0.29 * width)
    if len(groups) > 1:
        last, first = (style.cut(groups[place]["name"], 0.19 * width, style.TEXT) for place in (-1, 0))
        axes.set_xlabel(f"{metric} of a class\nright: {last} minus {first}, in points")
    style.legend_below(figure, style.group_handles(groups, linestyle="none"), [group["name"] for group in groups])
    return figure


@style.in_style
def per_class_change_figure(
    class_names: Sequence[str],
    difference: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    name_a: str,
    name_b: str,
    width: float = style.DOUBLE,
) -> Figure:
    """Draw each class's difference, b minus a, with its 95 % interval, coloured by its sign, the greatest first.

    difference, low, high: (C,), fractions, drawn in points; NaN where unknown.
    """
    values, lows, highs = (100 * np.asarray(array, dtype=float) for array in (difference, low, high))
    order = np.argsort(-values, kind="stable")  # NaN last
    figure = Figure(figsize=(width, 1.1 + row_height(len(order)) * len(order)), layout="constrained")
    who = f"{style.cut(name_b, 0.19 * width, style.TEXT)} minus {style.cut(name_a, 0.19 * width, style.TEXT)}"
    axes = figure.add_subplot(xlabel=f"{who}\nin points, with its 95 % interval")
    axes.axvline(0, color=style.INK, linewidth=0.8)
    better, worse, open_ = CHANGES.values()
    for row, label in enumerate(order):
        colour = better if lows[label] > 0 else worse if highs[label] < 0 else open_
        axes.plot([lows[label], highs[label]], [row, row], color=colour, linewidth=1.6, alpha=0.6)
        axes.plot(values[label], row, "o", markersize=6, color=colour)
        texts = [number(float(value[label]), 1, sign=True) for value in (values, lows, highs)]
        style.beside(axes, row, "" if texts[0] == UNKNOWN else "{} [{}, {}]".format(*texts))
    axes.grid(axis="x")
    style.name_rows(axes, [class_names[int(label)] for label in order], 0.29 * width)
    style.legend_below(figure, [Line2D([], [], color=colour, marker="o") for colour in CHANGES.values()], list(CHANGES))
    return figure


def row_height(rows: int) -> float:
    """Inches a class takes."""
    return 0.22 if rows <= 30 else 0.16


def draw_classes(axes: Axes, class_names: Sequence[str], groups: Sequence[Mapping], name_inches: float) -> None:
    """A row for each class: a marker for each group, a line between the least and the greatest, the gain in points."""
    values = np.array([group["values"] for group in groups], dtype=float).reshape(len(groups), len(class_names))
    gain = values[-1] - values[0] if len(groups) > 1 else values[0]
    order = np.argsort(-gain, kind="stable")  # NaN last
    rows = np.arange(len(order))
    axes.hlines(
        rows, np.fmin.reduce(values)[order], np.fmax.reduce(values)[order], color=style.GREY, alpha=0.5, linewidth=2
    )
    for (index, _), row in zip(style.numbered(groups), values[:, order], strict=True):
        axes.plot(row, rows, linestyle="none", **style.group_style(index), markersize=5.5, clip_on=False)
    if len(groups) > 1:
        for row, value in enumerate(gain[order]):
            style.beside(axes, row, points(value, 1).replace(UNKNOWN, ""))
    style.name_rows(axes, [class_names[int(label)] for label in order], name_inches)
    axes.set_xlim(*style.fraction_limits(values))
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")
    style.percent_ticks(axes.xaxis)
