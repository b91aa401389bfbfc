"""How large the pictures of a data set are, and of what shape."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cifar10.report.figures import style

RATIOS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3, 4)
RATIO_NAMES = ("1:4", "1:3", "1:2", "2:3", "1:1", "3:2", "2:1", "3:1", "4:1")


@style.in_style
def sizes_figure(sizes: np.ndarray, width: float = style.DOUBLE) -> Figure:
    """Draw widths against heights, and the aspect ratios; sizes: width and height in pixels, int (N, 2)."""
    figure, (scatter, bars) = style.next_to_each_other(2, width, 2.6)
    pairs, counts = np.unique(sizes, axis=0, return_counts=True)
    areas = 8 + 120 * (counts - 1) / counts.max()
    scatter.scatter(*pairs.T, s=areas, color=style.group_colour(0), alpha=0.5, linewidths=0, rasterized=True)
    scatter.set(xlabel="width (pixels)", ylabel="height (pixels)", xscale="log", yscale="log")
    for axis, values in ((scatter.xaxis, pairs[:, 0]), (scatter.yaxis, pairs[:, 1])):
        ticks = np.geomspace(max(1, values.min() * 0.9), values.max() * 1.1, 4)
        axis.set_ticks([float(f"{tick:.1g}") for tick in ticks])
        axis.set_ticks([], minor=True)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ratios = np.log(np.clip(sizes[:, 0] / sizes[:, 1], 1 / 4.5, 4.5))
    bars.hist(ratios, bins=31, range=(-np.log(4.5), np.log(4.5)), color=style.group_colour(0))
    shown = slice(None) if width > style.SINGLE else slice(None, None, 2)
    bars.set_xticks(np.log(RATIOS)[shown], RATIO_NAMES[shown])
    bars.set(xlabel="width : height", ylabel="pictures")
    return figure
