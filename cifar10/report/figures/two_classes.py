"""What two classes can be traded for at every threshold: ROC and precision-recall curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar10.report.figures import style

GRID = np.linspace(0, 1, 501)


@style.in_style
def two_classes_figure(groups: Sequence[Mapping], positive: str, share: float, width: float = style.DOUBLE) -> Figure:
    """Draw the ROC curve and the precision-recall curve of each group, with the points where its runs decide.

    Seeds are thin lines; the line of several is their mean at each place of the x axis (Fawcett 2006, section 7.2).

    groups: "name", "roc" and "precision_recall" (a pair of arrays a seed, x and y, x ascending), and "roc_points" and
    "precision_recall_points" (x and y, one a seed). share: of the positive images, which
    is the precision of guessing.
    """
    figure, (roc, recall) = style.next_to_each_other(2, width, 3.4)
    figure.set_layout_engine("constrained", hspace=0.08)
    name = style.cut(positive, 0.12 * width if width > style.SINGLE else 0.3 * width, style.TEXT)
    roc.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1)
    recall.axhline(share, color=style.GREY, linestyle="--", linewidth=1)
    for index, group in style.numbered(groups):
        _draw_curves(roc, group["roc"], group["roc_points"], index)
        _draw_curves(recall, group["precision_recall"], group["precision_recall_points"], index)
    roc.set(title="ROC", xlabel="false positive rate", ylabel=f"recall of {name}")
    recall.set(title="precision and recall", xlabel=f"recall of {name}", ylabel="precision")
    for axes in (roc, recall):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid()
        style.percent_ticks(axes.xaxis, axes.yaxis)
    style.legend_below(figure, style.group_handles(groups), [group["name"] for group in groups])
    return figure


def _draw_curves(
    axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], points: Sequence[np.ndarray], index: int
) -> None:
    colour = style.group_colour(index)
    if len(curves) > 1:
        for x, y in curves:
            axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.5)
        curves = [(GRID, np.mean([np.interp(GRID, x, y) for x, y in curves], axis=0))]
    axes.plot(*curves[0], color=colour)
    axes.plot(*points, **style.group_style(index), markersize=6, linestyle="none", clip_on=False)
