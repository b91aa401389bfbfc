"""Which settings lead where: every setting that differs is an axis, and each choice of them a line across all axes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from cifar10.report.figures import style
from cifar10.report.sweep.scales import Scale, scale_of

# of equal lightness in between, so that both ends can be seen on white and on the dark page
COLOURS = LinearSegmentedColormap.from_list(
    "worst to best", [style.PALETTE["vermilion"], style.PALETTE["purple"], style.PALETTE["blue"]]
)
PRUNED = {"color": style.GREY, "linestyle": (0, (1.5, 2)), "linewidth": 0.9, "alpha": 0.6}


@style.in_style
def parallel_figure(
    settings: Mapping[str, Sequence[str]],
    results: Sequence[float],
    objective: str,
    lower_is_better: bool = False,
    width: float = style.DOUBLE,
) -> Figure:
    """Draw parallel coordinates, one axis below another: a line for each choice of settings, coloured by its rank.

    settings: by name, as typed, one for each line. results: what each line led to, NaN for none: such a line ends
    before the last axis, which is the objective's. Numbers that span a power of ten are on a logarithmic axis.
    """
    ranked = np.asarray(results, dtype=float)
    ended = np.isfinite(ranked)
    scales = {name: scale_of(texts) for name, texts in settings.items()}
    if ended.any():
        scales[objective] = scale_of([f"{value:.4g}" for value in ranked[ended]], few=1)
    figure = Figure(figsize=(width, 0.75 + 0.62 * len(scales)), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.02, 1.02), ylim=(len(scales) - 0.6, -0.5))
    for row, (name, scale) in enumerate(scales.items()):
        _draw_axis(axes, row, name, scale, width - 0.3)
    places = np.full((len(scales), len(results)), np.nan)
    for row, name in enumerate(settings):
        places[row] = scales[name].places
    if ended.any():
        places[-1, ended] = scales[objective].places
    rows = np.arange(len(scales))
    order = np.argsort(ranked if lower_is_better else -ranked, kind="stable")[: ended.sum()]
    few = min(1.0, 30 / len(results))  # of many lines, only the best stay strong
    for index in np.flatnonzero(~ended):
        axes.plot(places[:, index], rows, **PRUNED | {"alpha": PRUNED["alpha"] * few})
    for rank, index in reversed(list(enumerate(order))):
        share = 1 - rank / max(1, len(order) - 1)
        alpha = few * (0.35 + 0.65 * share) + (1 - few) * share**8
        look = {"color": COLOURS(share), "alpha": alpha, "linewidth": 1 + 1.2 * (rank == 0)}
        axes.plot(places[:, index], rows, marker="o", markersize=3.5 + 2 * (rank == 0), clip_on=False, **look)
    axes.set_axis_off()
    looks = {"best": {"color": COLOURS(1.0), "linewidth": 2.2}, "middle": {"color": COLOURS(0.5)},
             "worst": {"color": COLOURS(0.0)}}  # fmt: skip
    looks |= {} if ended.all() else {"no result": PRUNED}
    style.legend_below(figure, [Line2D([], [], **look) for look in looks.values()], list(looks))
    return figure


def _draw_axis(axes: Axes, row: int, name: str, scale: Scale, inches: float) -> None:
    written = {"textcoords": "offset points", "fontsize": style.SMALL, "annotation_clip": False, "zorder": 5,
               "path_effects": [withStroke(linewidth=2.5, foreground=style.GROUND)]}  # fmt: skip
    axes.plot([0, 1], [row, row], color=style.GREY, linewidth=0.8)
    name = f"{name} (log)" if scale.kind == "logarithm" else name
    axes.annotate(style.cut(name, inches), (0, row), xytext=(0, 6), weight="bold", va="bottom", **written)
    values, texts = zip(*scale.ticks, strict=True)
    places = scale.place(values)
    texts = style.spaced([style.cut(text, inches / 4) for text in texts], places, inches)
    axes.plot(places, [row] * len(places), "|", color=style.GREY, markersize=5)
    for place, text in zip(places, texts, strict=True):
        side = "left" if place < 0.03 else "right" if place > 0.97 else "center"
        axes.annotate(text, (place, row), xytext=(0, -5), ha=side, va="top", **written)
