"""What accuracy costs: against the time of training and against its arithmetic."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cifar10.report.figures.style import (
    DOUBLE,
    SINGLE,
    group_handles,
    group_style,
    in_style,
    legend_below,
    numbered,
    percent_ticks,
    spaced,
)

TIMES = {0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36e3: "10 h"} | {
    3600.0 * hours: f"{hours} h" for hours in (100, 1000, 10_000)
}
FLOPS = {10.0**power: "10" + str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) for power in range(31)}
# of a point: its key, what its axis is called, and the ticks there may be
COSTS = (("seconds", "training time", TIMES), ("flops", "training FLOPs", FLOPS))


@in_style
def cost_figure(points: Sequence[Mapping]) -> Figure | None:
    """Draw accuracy against training time and training FLOPs, both logarithmic; None if neither is known of any model.

    points: "name", "acc" and, each of which may be None, "std" (of acc over seeds), "seconds" and "flops". A panel
    leaves out the models whose cost is unknown.
    """
    costs = [cost for cost in COSTS if any(is_known(point.get(cost[0])) for point in points)]
    if not costs:
        return None
    figure = Figure(figsize=(DOUBLE if len(costs) > 1 else SINGLE, 2.9), layout="constrained")
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (key, label, ticks) in zip(panels, costs, strict=True):
        draw_cost(axes, points, key, ticks, 2.5)
        axes.set_xlabel(label)
    panels[0].set_ylabel("accuracy")
    percent_ticks(panels[0].yaxis)
    drawn = [
        dict(point, index=index) for index, point in numbered(points) if any(is_known(point.get(c[0])) for c in costs)
    ]
    legend_below(figure, group_handles(drawn, linestyle="none"), [point["name"] for point in drawn])
    return figure


def draw_cost(axes: Axes, points: Sequence[Mapping], key: str, ticks: Mapping[float, str], inches: float) -> None:
    """A marker for each model whose cost is known, on an axis of so many inches between two of the ticks."""
    known = [(index, point) for index, point in numbered(points) if is_known(point.get(key))]
    costs = [point[key] for _, point in known]
    places = np.array(list(ticks))
    first = max(0, np.searchsorted(places, min(costs) / 1.1) - 1)
    last = min(len(places) - 1, np.searchsorted(places, max(costs) * 1.1))
    shown = places[first : last + 1]
    left, right = min(shown[0], *costs) / 1.15, max(shown[-1], *costs) * 1.15
    names = spaced([ticks[place] for place in shown], np.log(shown / left) / np.log(right / left), inches)
    axes.set(xscale="log", xlim=(left, right))
    axes.set_xticks(shown, names)
    axes.xaxis.set_minor_locator(NullLocator())
    for index, point in known:
        spread = {"elinewidth": 1.2, "capsize": 3, "markersize": 7}
        axes.errorbar(point[key], point["acc"], point.get("std") or 0, **group_style(index), **spread, linestyle="none")
    axes.margins(y=0.12)
    axes.grid()


def is_known(value: float | None) -> bool:
    """Whether a cost can stand on a logarithmic axis."""
    return value is not None and np.isfinite(value) and value > 0
