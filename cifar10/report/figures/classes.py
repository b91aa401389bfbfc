"""Class by class: how well each is recognised by several models, and what the change from one to another is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar10.report.figures.style import (
    DOUBLE,
    GREY,
    INK,
    SMALL,
    TEXT,
    class_colour,
    cut,
    floor_of,
    group_handles,
    group_style,
    in_style,
    legend_below,
    name_rows,
    numbered,
    percent_ticks,
    signed,
)

LONGEST_NAME = 2.0  # inches


@in_style
def per_class_figure(class_names: Sequence[str], groups: Sequence[Mapping], metric: str = "recall") -> Figure:
    """Draw each class's value in every group, the classes sorted by their gain from the first group to the last.

    groups: "name" and "values" (C,), fractions, NaN where unknown. metric: what the values are.
    """
    figure = Figure(figsize=(DOUBLE, 1.05 + row_height(len(class_names)) * len(class_names)), layout="constrained")
    axes = figure.add_subplot(xlabel=f"{metric} of a class")
    draw_classes(axes, class_names, groups, LONGEST_NAME)
    if len(groups) > 1:
        last, first = (cut(groups[place]["name"], 1.3, TEXT) for place in (-1, 0))
        axes.set_xlabel(f"{metric} of a class\nright: {last} minus {first}, in points")
    legend_below(figure, group_handles(groups, linestyle="none"), [group["name"] for group in groups])
    return figure


@in_style
def per_class_change_figure(
    class_names: Sequence[str],
    difference: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    name_a: str,
    name_b: str,
) -> Figure:
    """Draw each class's difference, b minus a, with its 95 % interval, in its class's colour, the greatest first.

    difference, low, high: (C,), fractions, drawn in points; NaN where unknown.
    """
    values, low, high = (100 * np.asarray(array, dtype=float) for array in (difference, low, high))
    order = np.argsort(-values, kind="stable")  # NaN last
    figure = Figure(figsize=(DOUBLE, 0.85 + row_height(len(order)) * len(order)), layout="constrained")
    who = f"{cut(name_b, 1.3, TEXT)} minus {cut(name_a, 1.3, TEXT)}"
    axes = figure.add_subplot(xlabel=f"{who}\nin points, with its 95 % interval")
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, label in enumerate(order):
        axes.plot([low[label], high[label]], [row, row], color=GREY, linewidth=1.6)
        face = {"markerfacecolor": class_colour(label), "markeredgecolor": INK, "markeredgewidth": 0.6}
        axes.plot(values[label], row, "o", markersize=6.5, **face)
        text = (
            f"{signed(values[label])} [{signed(low[label])}, {signed(high[label])}]"
            if np.isfinite(values[label])
            else ""
        )
        _beside(axes, row, text)
    axes.grid(axis="x")
    name_rows(axes, [class_names[label] for label in order], LONGEST_NAME)
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
    axes.hlines(rows, np.fmin.reduce(values)[order], np.fmax.reduce(values)[order], color=GREY, alpha=0.5, linewidth=2)
    for (index, _), row in zip(numbered(groups), values[:, order], strict=True):
        axes.plot(row, rows, linestyle="none", **group_style(index), markersize=5.5)
    if len(groups) > 1:
        for row, points in enumerate(100 * gain[order]):
            _beside(axes, row, signed(points))
    name_rows(axes, [class_names[label] for label in order], name_inches)
    axes.set_xlim(floor_of(values), 1.01)
    axes.grid(axis="x")
    percent_ticks(axes.xaxis)


def _beside(axes: Axes, row: int, text: str) -> None:
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (1, row), xytext=(6, 0), fontsize=SMALL, **place)
