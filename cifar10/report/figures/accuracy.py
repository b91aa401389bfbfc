"""Accuracy of several models with all their seeds: on all the training images, and on fewer of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cifar10.report.figures import style
from cifar10.report.numbers import UNKNOWN, count, interval, percent


@style.in_style
def accuracy_figure(groups: Sequence[Mapping], width: float = style.DOUBLE) -> Figure:
    """Draw a row for each model: the mean accuracy and its interval, the seeds below it, and the values.

    groups: "name", "accs" (one a seed), "low" and "high" (of a 95 % interval; NaN where unknown).
    """
    figure = Figure(figsize=(width, 0.7 + 0.46 * len(groups)), layout="constrained")
    axes = figure.add_subplot(xlabel="accuracy")
    for row, (index, group) in enumerate(style.numbered(groups)):
        mean, low, high = mean_of(group["accs"]), float(group["low"]), float(group["high"])
        axes.plot([low, high], [row, row], color=style.group_colour(index), linewidth=2.5, solid_capstyle="butt")
        axes.plot(mean, row, **style.group_style(index), markersize=8)
        draw_seeds(axes, group["accs"], row + 0.3, index)
        style.beside(axes, row - 0.17, percent(mean), points=8, fontsize=style.TEXT, weight="bold")
        if UNKNOWN not in (text := interval(low, high)):
            style.beside(axes, row + 0.23, text, points=8)
    style.name_rows(axes, [group["name"] for group in groups], 0.26 * width)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=width)
    axes.grid(axis="x")
    style.percent_ticks(axes.xaxis)
    return figure


@style.in_style
def data_efficiency_figure(groups: Sequence[Mapping], width: float = style.DOUBLE) -> Figure:
    """Draw accuracy against the number of training images: a dot a seed, the mean and its standard deviation.

    groups: "name", "sizes" (numbers of images) and "accs" (for each size, one accuracy a seed).
    """
    figure = Figure(figsize=(width, 3.2), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="training images", ylabel="accuracy")
    for index, group in style.numbered(groups):
        order = np.argsort(group["sizes"], kind="stable")
        sizes = np.asarray(group["sizes"])[order]
        accs = [[acc for acc in group["accs"][place] if np.isfinite(acc)] for place in order]
        spread = [float(np.std(values, ddof=1)) if len(values) > 1 else 0 for values in accs]
        line = {"elinewidth": 1, "capsize": 2.5}
        axes.errorbar(sizes, [mean_of(values) for values in accs], spread, **style.group_style(index), **line)
        for size, values in zip(sizes, accs, strict=True):
            axes.plot([size] * len(values), values, ".", color=style.group_colour(index), markersize=4, alpha=0.5)
    _size_ticks(axes, sorted({int(size) for group in groups for size in group["sizes"]}), 0.8 * width)
    axes.grid()
    style.percent_ticks(axes.yaxis)
    style.legend_below(figure, style.group_handles(groups), [group["name"] for group in groups])
    return figure


def mean_of(accs: Sequence[float]) -> float:
    """Mean of what is known."""
    known = [acc for acc in accs if np.isfinite(acc)]
    return float(np.mean(known)) if known else float("nan")


def draw_seeds(axes: Axes, accs: Sequence[float], row: float, index: int, size: float = 5) -> None:
    """A small dot for each seed."""
    axes.plot(
        accs, [row] * len(accs), ".", color=style.group_colour(index), markersize=size, alpha=0.7, markeredgewidth=0
    )


def _size_ticks(axes: Axes, sizes: Sequence[int], inches: float) -> None:
    """A tick at every size, named where there is room."""
    axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    left, right = np.log(axes.get_xlim())
    axes.set_xticks(sizes, style.spaced(list(map(count, sizes)), (np.log(sizes) - left) / (right - left), inches))
    axes.xaxis.set_minor_locator(NullLocator())
