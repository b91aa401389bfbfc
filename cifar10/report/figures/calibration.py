"""Whether a classifier's confidence is right, and how far it can be used to answer only where it is high."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from cifar10.report.figures import style
from cifar10.report.numbers import count as written
from cifar10.report.numbers import number
from cifar10.report.statistics import wilson_interval

MOST_POINTS = 200
FEWEST = 100  # images: the accuracy on fewer is mostly chance


@style.in_style
def reliability_figure(before: Mapping, after: Mapping, title: str, width: float = style.DOUBLE) -> Figure:
    """Draw accuracy against confidence, bin by bin, before and after temperature scaling (Guo et al. 2017, fig. 4).

    A bin's accuracy has its 95 % Wilson interval, so that a bin of few images is seen to say little.

    before, after: "edges" (bins + 1, of 0 to 1), "count", "confidence" (mean of a bin) and "acc" (each an array over
    the bins, NaN in empty ones), "ece" (a fraction) and "temperature" (1 before).
    """
    columns = 2 if width > style.SINGLE else 1
    figure = Figure(figsize=(width, 4.3 * 2 / columns), layout="constrained")
    figure.suptitle(style.cut(title, width - 0.2, style.TITLE))
    figure.set_layout_engine("constrained", wspace=0.06, hspace=0.04)
    # a column for each of the two, or one below the other
    panels = figure.subplots(4 // columns, columns, sharex=True, height_ratios=(3, 1) * (2 // columns), squeeze=False)
    panels = panels if columns == 2 else panels.reshape(2, 2).T
    most = max(np.max(before["count"]), np.max(after["count"]), 1)
    headings = ("as trained", f"scaled by temperature {number(after['temperature'], 2)}")
    for column, (bins, heading) in enumerate(zip((before, after), headings, strict=True)):
        _draw_accuracy(panels[0, column], bins)
        panels[0, column].set_title(f"{heading}: ECE {number(bins['ece'])}")
        _draw_counts(panels[1, column], bins, most)
        if column == 0 or columns == 1:
            panels[0, column].set_ylabel("accuracy")
            panels[1, column].set_ylabel("images")
    handles = [
        Line2D([], [], color=style.PALETTE["blue"], marker="o"),
        Line2D([], [], color=style.GREY, linestyle="--", linewidth=1),
    ]
    style.legend_below(figure, handles, ["accuracy and its 95 % interval", "accuracy = confidence"])
    return figure


@style.in_style
def coverage_figure(groups: Sequence[Mapping], width: float = style.DOUBLE) -> Figure:
    """Draw the accuracy on the most confident images, from 100 of them on, against their share of all images.

    groups: "name", "coverage" (k of N images, k from 1 to N, as k / N) and "acc" (the accuracy there), which is drawn
    with its 95 % Wilson interval.
    """
    figure = Figure(figsize=(width, 3.0), layout="constrained")
    axes = figure.add_subplot(xlabel="coverage: share of images answered", ylabel="accuracy on them")
    for index, group in style.numbered(groups):
        coverage, acc = np.asarray(group["coverage"], dtype=float), np.asarray(group["acc"], dtype=float)
        first = min(FEWEST, len(acc)) - 1
        k = np.unique(np.linspace(first, len(acc) - 1, MOST_POINTS).round().astype(int))
        low, high = zip(*(wilson_interval(round(acc[at] * (at + 1)), at + 1) for at in k), strict=True)
        axes.fill_between(coverage[k], low, high, color=style.group_colour(index), alpha=0.15, linewidth=0)
        axes.plot(coverage[k], acc[k], color=style.group_colour(index))
        axes.plot(coverage[-1:], acc[-1:], **style.group_style(index), clip_on=False)
    axes.set_xlim(0, 1.02)
    axes.grid()
    style.percent_ticks(axes.xaxis, axes.yaxis)
    style.legend_below(figure, style.group_handles(groups), [group["name"] for group in groups])
    return figure


def _draw_accuracy(axes: Axes, bins: Mapping) -> None:
    acc, confidence = np.asarray(bins["acc"], dtype=float), np.asarray(bins["confidence"], dtype=float)
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1)
    known = np.asarray(bins["count"]) > 0
    ends = [wilson_interval(round(a * n), n) for a, n in zip(acc[known], np.asarray(bins["count"])[known], strict=True)]
    axes.vlines(confidence[known], *np.transpose(ends), color=style.PALETTE["blue"], linewidth=1.2)
    axes.plot(confidence, acc, color=style.PALETTE["blue"], marker="o", linestyle="none", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    style.percent_ticks(axes.yaxis)


def _draw_counts(axes: Axes, bins: Mapping, most: int) -> None:
    edges, count = np.asarray(bins["edges"], dtype=float), np.asarray(bins["count"])
    axes.bar(
        edges[:-1], count, np.diff(edges), align="edge", color=style.GREY, alpha=0.6, edgecolor=style.INK, linewidth=0.4
    )
    # a bin of ten images beside one of nine thousand can be seen on a logarithmic axis only
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * most)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda images, _: written(images)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("confidence")
    style.percent_ticks(axes.xaxis)
