"""What accuracy costs: against the time of training and against its arithmetic."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cifar10.report.figures import style

TIMES = {0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36e3: "10 h"} | {
    3600.0 * hours: f"{hours:,} h" for hours in (100, 1000, 10_000)
}
FLOPS = {10.0**power: "10" + str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) for power in range(31)}
# of a point: its key, what its axis is called, and the ticks there may be
COSTS = (("train_seconds", "training time", TIMES), ("train_flops", "training FLOP", FLOPS))


@style.in_style
def cost_figure(points: Sequence[Mapping], width: float = style.DOUBLE) -> Figure:
    """Draw accuracy against training time and training FLOP, both logarithmic; see `has_cost`.

    points: "name", and of each "acc", "train_seconds" and "train_flops" the "mean" and "std" over seeds (std may be
    None), or None where a cost is unknown: a panel leaves that model out.
    """
    costs = [cost for cost in COSTS if any(is_known(point[cost[0]]) for point in points)]
    if not costs:
        raise ValueError("points: there is no cost to draw")
    figure, panels = style.next_to_each_other(len(costs), width, 2.9, sharey=True)
    for axes, (key, label, ticks) in zip(panels, costs, strict=True):
        draw_cost(axes, points, key, ticks, 2.5)
        axes.set(xlabel=label, ylabel="accuracy")
        axes.label_outer()
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(label)
        style.percent_ticks(axes.yaxis)
    drawn = [{**point, "index": i} for i, point in style.numbered(points) if any(is_known(point[c[0]]) for c in costs)]
    style.legend_below(figure, style.group_handles(drawn, linestyle="none"), [point["name"] for point in drawn])
    return figure


def has_cost(points: Sequence[Mapping]) -> bool:
    """Whether there is anything to draw."""
    return any(is_known(point[key]) for point in points for key, *_ in COSTS)


def draw_cost(axes: Axes, points: Sequence[Mapping], key: str, ticks: Mapping[float, str], inches: float) -> None:
    """A marker for each model whose cost is known, on an axis of so many inches between two of the ticks."""
    known = [(index, point) for index, point in style.numbered(points) if is_known(point[key])]
    costs = [point[key]["mean"] for _, point in known]
    places = np.array(list(ticks))
    first = max(0, np.searchsorted(places, min(costs) / 1.1) - 1)
    last = min(len(places) - 1, np.searchsorted(places, max(costs) * 1.1))
    shown = places[first : last + 1]
    left, right = min(shown[0], *costs) / 1.15, max(shown[-1], *costs) * 1.15
    names = style.spaced([ticks[place] for place in shown], np.log(shown / left) / np.log(right / left), inches)
    axes.set(xscale="log", xlim=(left, right))
    axes.set_xticks(shown, names)
    axes.xaxis.set_minor_locator(NullLocator())
    for index, point in known:
        bars = {"elinewidth": 1.2, "capsize": 3, "markersize": 7, "linestyle": "none"}
        # on a logarithmic axis a bar cannot reach 0
        wide = min(point[key]["std"] or 0, 0.99 * point[key]["mean"])
        axes.errorbar(
            point[key]["mean"], point["acc"]["mean"], point["acc"]["std"] or 0, wide, **style.group_style(index), **bars
        )
    axes.margins(y=0.12)
    axes.grid()


def is_known(cost: Mapping | None) -> bool:
    """Whether a cost can stand on a logarithmic axis."""
    return cost is not None and np.isfinite(cost["mean"]) and cost["mean"] > 0
