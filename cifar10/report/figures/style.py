"""What all figures share: colours, sizes on paper, and what text, axes and legends look like."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter

from cifar10.report.numbers import tick

# Okabe & Ito 2008, "Color Universal Design": distinguishable under every common colour vision deficiency
PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
}
# the first four have a contrast of 3 on white and on the dark page; black and yellow vanish on one of them
GROUP_COLOURS = [PALETTE[name] for name in ("blue", "vermilion", "green", "purple", "sky", "orange")]
GROUP_MARKERS = "os^DvPX*"
# text, ticks and spines; used for nothing else, because `svg` recolours these
INK = "#1B1B1D"
GREY = "#595959"
GROUND = "#FEFEFD"  # what text that lines run across is edged with

SINGLE, DOUBLE = 3.6, 6.9  # inches: one column of a paper or a phone, two columns or a page
SMALL, TEXT, TITLE = 8, 9, 10  # points

STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": TEXT,
    "figure.titlesize": TITLE,
    "font.size": TEXT,
    "grid.alpha": 0.3,
    "grid.color": GREY,
    "grid.linewidth": 0.5,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.color": INK,
    "ytick.labelsize": SMALL,
}
in_style = rc_context(STYLE)  # a decorator: for the duration of the function


def group_colour(index: int) -> str:
    """Colour of the group of that number."""
    return GROUP_COLOURS[index % len(GROUP_COLOURS)]


def group_marker(index: int) -> str:
    """Marker of the group of that number; with its colour it tells 24 groups apart."""
    return GROUP_MARKERS[index % len(GROUP_MARKERS)]


def group_style(index: int) -> dict[str, Any]:
    """Colour and marker, as `plot` takes them."""
    return {"color": group_colour(index), "marker": group_marker(index)}


def numbered(groups: Iterable[Mapping]) -> list[tuple[int, Mapping]]:
    """Each group with its number: its own "index", or else its place."""
    return [(group.get("index", place), group) for place, group in enumerate(groups)]


def next_to_each_other(count: int, width: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure of `count` panels, each `height` inches high; one below another in a single column."""
    columns = count if width > SINGLE else 1
    rows = count // columns
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def beside(axes: Axes, row: float, text: str, points: float = 6, **options) -> None:
    """Text to the right of a row."""
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (1, row), xytext=(points, 0), **{"fontsize": SMALL, **place, **options})


def text_inches(text: str, size: float) -> float:
    """Width of a line of text."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0] / 72


def cut(text: str, inches: float, size: float = SMALL) -> str:
    """`text`, or as much of its beginning as fits with an ellipsis."""
    if text_inches(text, size) <= inches:
        return text
    fitting = bisect_left(range(1, len(text)), True, key=lambda n: text_inches(f"{text[:n]}…", size) > inches)
    return f"{text[:fitting].rstrip()}…"


def percent_ticks(*axes: Axis) -> None:
    """Label the ticks of axes of fractions in per cent."""
    for axis in axes:
        locator: Any = axis.get_major_locator()
        locator.set_params(steps=[1, 2, 5, 10])
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def fraction_limits(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that shows all known values with some room, within 0 and 1."""
    known = [value for value in np.ravel(list(values)) if np.isfinite(value)] or [0.0, 1.0]
    room = 0.08 * max(max(known) - min(known), 0.02)
    return max(0.0, min(known) - room), min(1.0, max(known) + room)


def spaced(names: Sequence[str], places: np.ndarray, inches: float) -> list[str]:
    """Names of ticks at rising `places`, 0 to 1 along an axis, empty where they would overlap the next one."""
    shown, free = [], np.inf
    for name, place in zip(reversed(names), reversed(places * inches), strict=True):  # the last one matters most
        half = text_inches(name, SMALL) / 2 + 0.05
        shown.append(name if place + half <= free else "")
        free = place - half if shown[-1] else free
    return shown[::-1]


def name_rows(axes: Axes, names: Sequence[str], inches: float) -> None:
    """One name a row, from the top."""
    axes.set_yticks(range(len(names)), [cut(name, inches) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def legend_below(figure: Figure, handles: Sequence[Line2D], names: Sequence[str]) -> None:
    """A legend below the panels, in as many columns as fit; the figure grows with its rows."""
    room = figure.get_figwidth() - 0.2
    names = [cut(name, room - 0.5) for name in names]
    widths = [text_inches(name, SMALL) + 0.6 for name in names]
    fitting = [n for n in range(2, len(names) + 1) if sum(max(part) for part in np.array_split(widths, n)) <= room]
    # matplotlib leaves out what is named with a leading underscore
    columns = max(fitting, default=1)
    figure.set_figheight(figure.get_figheight() + 0.17 * (-(-len(names) // columns) - 1))
    legend = figure.legend(handles, [""] * len(names), loc="outside lower center", ncols=columns)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def group_handles(groups: Iterable[Mapping], **options) -> list[Line2D]:
    """Legend handles, one a group."""
    return [Line2D([], [], **group_style(index), **options) for index, _ in numbered(groups)]
