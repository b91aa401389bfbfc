"""The confusion matrix of more classes than can be numbered: similar ones side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.cluster.hierarchy import leaves_list, to_tree

from cifar10.report.figures import style
from cifar10.report.figures.confusion import FRACTIONS
from cifar10.report.metrics import cluster
from cifar10.report.numbers import number

LINE = 1.15 * style.SMALL / 72  # inches


@style.in_style
def clustered_confusion_figure(
    matrix: Sequence[Sequence[int]], class_names: Sequence[str], title: str, width: float = style.DOUBLE
) -> Figure:
    """Draw each cell's share of the true class as a colour, the classes in the order of their clustering.

    matrix: (C, C), C > 2, rows true, columns predicted. The smallest clusters that are high enough for a line of text
    are framed and named after their classes, those of most images first.
    """
    counts = np.asarray(matrix)
    linkage = cluster(counts)
    order = leaves_list(linkage)
    names_width = 0.3 * width
    side = width - names_width - 0.75  # the colourbar and its label
    height = side + 0.75
    figure = Figure(figsize=(width, height))
    figure.text(
        0.5, 1 - 0.08 / height, style.cut(title, width - 0.2, style.TITLE), fontsize=style.TITLE, ha="center", va="top"
    )
    axes = figure.add_axes(
        (names_width / width, 0.35 / height, side / width, side / height), xlabel="predicted, in the same order"
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # small shares must be seen too
    image = axes.imshow(shares[np.ix_(order, order)], cmap=FRACTIONS, norm=PowerNorm(0.5, 0, 1), interpolation="none")
    row = side / len(order)
    totals, places, texts, first = counts.sum(axis=1), [], [], 0
    for size, named in readable(to_tree(linkage), LINE / row):
        if named:
            members = sorted(order[first : first + size], key=lambda label: -totals[label])
            places.append(first + (size - 1) / 2)
            texts.append(style.cut(", ".join(class_names[int(label)] for label in members), names_width - 0.1))
            if size > 1:
                frame = Rectangle(
                    (first - 0.5, first - 0.5), size, size, fill=False, edgecolor=style.GREY, linewidth=0.7
                )
                axes.add_patch(frame)
        first += size
    axes.set_yticks(places, texts)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=style.GREY, alpha=0.4)
    bar: Any = figure.colorbar(
        image, cax=axes.inset_axes((1 + 0.1 / side, 0, 0.12 / side, 1)), format=lambda share, _: number(100 * share, 0)
    )
    bar.set_label("% of the true class")
    bar.set_ticks([0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.tick_params(length=2)
    bar.outline.set(color=style.GREY, alpha=0.4)
    bar.solids.set_rasterized(True)
    return figure


def readable(node: Any, rows: float) -> list[tuple[int, bool]]:
    """Sizes of the clusters in their order, and whether each has at least so many rows and no part that has."""
    if node.count < rows:
        return [(node.count, False)]
    parts = [] if node.is_leaf() else [*readable(node.left, rows), *readable(node.right, rows)]
    return parts if any(named for _, named in parts) else [(node.count, True)]
