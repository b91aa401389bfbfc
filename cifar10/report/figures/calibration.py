"""Whether a classifier's confidence is right, and how far it can be used to answer only where it is high."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from cifar10.report.figures.style import (
    DOUBLE,
    GREY,
    INK,
    PALETTE,
    SINGLE,
    group_colour,
    group_handles,
    group_style,
    in_style,
    legend_below,
    numbered,
    percent,
    percent_ticks,
)

MOST_POINTS = 200
# of the most confident images so few are answered that the accuracy is mostly chance
STEADY = 0.05


@in_style
def reliability_figure(before: Mapping, after: Mapping, title: str) -> Figure:
    """Draw accuracy against confidence, bin by bin, before and after temperature scaling (Guo et al. 2017, fig. 4).

    before, after: "edges" (bins + 1, of 0 to 1), "count", "confidence" (mean of a bin) and "acc" (each an array over
    the bins, NaN in empty ones), "ece" (a fraction) and "temperature" (1 before).
    """
    figure = Figure(figsize=(DOUBLE, 4.3), layout="constrained")
    figure.suptitle(title)
    figure.get_layout_engine().set(wspace=0.06)
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    most = max(np.max(before["count"]), np.max(after["count"]), 1)
    headings = ("as trained", f"scaled by temperature {after['temperature']:.2f}")
    for column, (bins, heading) in enumerate(zip((before, after), headings, strict=True)):
        _draw_gaps(panels[0, column], bins)
        panels[0, column].set_title(f"{heading}: ECE {percent(bins['ece'])}")
        _draw_counts(panels[1, column], bins, most)
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("images")
    handles = [
        Line2D([], [], color=PALETTE["blue"], marker="o"),
        Patch(color=PALETTE["vermilion"], alpha=0.4),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1),
    ]
    legend_below(figure, handles, ["accuracy in a bin of confidence", "gap", "confidence = accuracy"])
    return figure


@in_style
def coverage_figure(groups: Sequence[Mapping]) -> Figure:
    """Draw the accuracy on the most confident images against their share of all images.

    groups: "name", "coverage" (rising, of 0 to 1) and "acc" (the accuracy there).
    """
    figure = Figure(figsize=(SINGLE, 2.7), layout="constrained")
    axes = figure.add_subplot(xlabel="coverage: share of images answered", ylabel="accuracy on them")
    lowest = 1.0
    for index, group in numbered(groups):
        coverage, acc = np.asarray(group["coverage"], dtype=float), np.asarray(group["acc"], dtype=float)
        some = np.unique(np.linspace(0, len(acc) - 1, MOST_POINTS).round().astype(int)) if len(acc) else []
        axes.plot(coverage[some], acc[some], color=group_colour(index))
        axes.plot(coverage[-1:], acc[-1:], **group_style(index), clip_on=False)
        steady = acc[(coverage >= STEADY) & np.isfinite(acc)]
        lowest = min(lowest, *steady) if len(steady) else lowest
    margin = 0.06 * max(1 - lowest, 0.01)
    axes.set(xlim=(0, 1.02), ylim=(max(0, lowest - margin), 1 + margin))
    axes.grid()
    percent_ticks(axes.xaxis, axes.yaxis)
    legend_below(figure, group_handles(groups), [group["name"] for group in groups])
    return figure


def _draw_gaps(axes: Axes, bins: Mapping) -> None:
    edges = np.asarray(bins["edges"], dtype=float)
    acc, confidence = np.asarray(bins["acc"], dtype=float), np.asarray(bins["confidence"], dtype=float)
    gap = {"color": PALETTE["vermilion"], "alpha": 0.4, "linewidth": 0}
    axes.bar(edges[:-1], acc - confidence, np.diff(edges), bottom=confidence, align="edge", **gap)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(confidence, acc, color=PALETTE["blue"], marker="o", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    percent_ticks(axes.yaxis)


def _draw_counts(axes: Axes, bins: Mapping, most: int) -> None:
    edges, count = np.asarray(bins["edges"], dtype=float), np.asarray(bins["count"])
    axes.bar(edges[:-1], count, np.diff(edges), align="edge", color=GREY, alpha=0.6, edgecolor=INK, linewidth=0.4)
    # a bin of ten images beside one of nine thousand can be seen on a logarithmic axis only
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * most)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda images, _: f"{images:,.0f}".replace(",", " ")))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("confidence")
    percent_ticks(axes.xaxis)
