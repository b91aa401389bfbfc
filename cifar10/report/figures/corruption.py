"""Accuracy on corrupted images, against the severity of the corruption."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar10.report.figures import style


@style.in_style
def corruption_figure(groups: Sequence[Mapping], corruptions: Sequence[str], width: float = style.DOUBLE) -> Figure:
    """Draw a panel for each corruption: accuracy over severity, dashed the accuracy on clean images.

    groups: "name", "clean" (accuracy) and "acc" (corruptions, severities), from severity 1; NaN where unknown.
    """
    columns = min(5 if width > style.SINGLE else 2, len(corruptions))
    rows = -(-len(corruptions) // columns)
    width = style.SINGLE if columns <= 2 else width
    figure = Figure(figsize=(width, 0.8 + 1.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, (axes, corruption) in enumerate(zip(panels.flat, corruptions, strict=False)):
        for index, group in style.numbered(groups):
            acc = np.asarray(group["acc"], dtype=float)[place]
            axes.axhline(group["clean"], color=style.group_colour(index), linestyle="--", linewidth=0.9)
            axes.plot(range(1, len(acc) + 1), acc, **style.group_style(index), markersize=3)
        axes.set_title(style.cut(corruption, (width - 0.9) / columns), fontsize=style.SMALL, pad=3)
        axes.grid()
        axes.tick_params(labelbottom=place + columns >= len(corruptions))
        if place >= (rows - 1) * columns:
            axes.set_xlabel("severity", fontsize=style.SMALL)
    for axes in panels.flat[len(corruptions) :]:
        axes.remove()
    severities = np.shape(groups[0]["acc"])[1]
    panels[0, 0].set(xticks=range(1, severities + 1), xlim=(0.6, severities + 0.4))
    style.percent_ticks(panels[0, 0].yaxis)
    figure.supylabel("accuracy", fontsize="medium")
    clean = Line2D([], [], color=style.GREY, linestyle="--", linewidth=0.9)
    style.legend_below(
        figure, [*style.group_handles(groups), clean], [*(group["name"] for group in groups), "clean images"]
    )
    return figure
