"""The confusion matrix of one classifier, or how that of another one differs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from cifar10.report.figures import style
from cifar10.report.numbers import count, number

# the blue stands where CIELAB lightness falls in a straight line from white to the dark end
FRACTIONS = LinearSegmentedColormap.from_list(
    "fractions", [(0.0, "#FFFFFF"), (0.63, style.PALETTE["blue"]), (1.0, "#00263F")]
)
# equal lightness on both sides
CHANGES = LinearSegmentedColormap.from_list("changes", [(0.0, "#9E4400"), (0.5, "#FFFFFF"), (1.0, "#00609C")])

MOST_CLASSES_WITH_NUMBERS = 30
MOST_COMPACT_CLASSES = 10
LONGEST_NAME = 2.2  # inches


@style.in_style
def confusion_matrix_figure(
    matrix: Sequence[Sequence[int]],
    class_names: Sequence[str],
    title: str,
    width: float = style.DOUBLE,
    least: float = 0,
) -> Figure:
    """Draw each cell's count and, below it, its percentage of the true class, which is its colour too.

    matrix: (C, C), rows true, columns predicted. The figure grows with the number of classes and the length of their
    names (cut at 2.2 inches); past 30 classes, or below the fraction `least`, cells have their colour alone. Up to 10
    classes fit into a single column, with percentages only.
    """
    counts = _checked(matrix, class_names)
    fractions = _fractions(counts)
    grid = _empty_grid(class_names, title, width)
    _fill(grid, fractions, FRACTIONS, Normalize(0, 1))

    def text(n: int, fraction: float) -> str:
        if not n or fraction < least:
            return ""
        shown = number(100 * fraction, 1)
        return shown if grid.compact else f"{count(n)}\n{shown}"

    if grid.numbered:
        _write(grid, np.vectorize(text, otypes=[object])(counts, fractions), FRACTIONS(fractions))
    _add_colourbar(grid, "% of the true class", lambda fraction: number(100 * fraction, 0))
    return grid.figure


def confusion_image(matrix: np.ndarray, pixels: int = 600) -> np.ndarray:
    """The cells' colours alone as uint8 (H, W, 3), each cell a square of as many pixels as fit into `pixels` a side."""
    size = max(1, pixels // len(matrix))
    return FRACTIONS(_fractions(matrix).repeat(size, axis=0).repeat(size, axis=1), bytes=True)[..., :3]


@style.in_style
def confusion_difference_figure(
    matrix_a: Sequence[Sequence[int]],
    matrix_b: Sequence[Sequence[int]],
    class_names: Sequence[str],
    title: str,
    width: float = style.DOUBLE,
) -> Figure:
    """Draw b minus a in points (hundredths of the true class); blue where b is better, orange where it is worse.

    Better is more on the diagonal and less elsewhere. matrix_a, matrix_b: counts (C, C), rows true, columns predicted.
    """
    change = 100 * (_fractions(_checked(matrix_b, class_names)) - _fractions(_checked(matrix_a, class_names)))
    better = np.where(np.eye(len(change), dtype=bool), change, -change)
    most = max(1.0, np.abs(change).max())
    scale = Normalize(-most, most)
    grid = _empty_grid(class_names, title, width)
    _fill(grid, better, CHANGES, scale)
    if grid.numbered:
        texts = np.vectorize(lambda points: "" if abs(points) < 0.05 else number(points, 1, sign=True))(change)
        _write(grid, texts, CHANGES(scale(better)))
    bar = _add_colourbar(grid, "change in points of the true class", lambda points: f"{abs(points):g}")
    if bar is not None:
        bar.set_title("better", fontsize=style.SMALL, loc="left")
        bar.text(0, -0.02, "worse", fontsize=style.SMALL, ha="left", va="top", transform=bar.transAxes)
    return grid.figure


@dataclass
class _Grid:
    """Axes of `classes` rows and columns, a cell so many inches wide. compact: so narrow that one number fits."""

    figure: Figure
    axes: Axes
    classes: int
    cell: float
    compact: bool

    @property
    def numbered(self) -> bool:
        return self.classes <= MOST_CLASSES_WITH_NUMBERS


def _checked(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> np.ndarray:
    counts, n = np.asarray(matrix), len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"matrix: is {counts.shape}, but there are {n} class names")
    return counts


def _fractions(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _empty_grid(class_names: Sequence[str], title: str, width: float) -> _Grid:
    n = len(class_names)
    compact = width <= style.SINGLE and n <= MOST_COMPACT_CLASSES
    # two columns of a paper for ten classes; the colourbar's label needs 3 inches, and 20 are enough for any number
    wanted = min(0.75, max(0.42, 4.5 / n)) if n <= MOST_CLASSES_WITH_NUMBERS else 0.2
    cell = min(max(wanted, 3 / n), 20 / n)
    # slanted lines of text stand 0.7 cells apart
    name_size = min(style.TEXT, 0.59 * 72 * cell)
    names = [style.cut(name, 0.8 if compact else LONGEST_NAME, name_size) for name in class_names]
    longest = max(style.text_inches(name, name_size) for name in names)
    if compact:
        cell = (width - longest - 0.45) / n
    flat = longest < 0.9 * cell
    title = style.cut(title, width - 0.2, style.TITLE)
    if not compact:
        width = max(n * cell + longest + 1.5, style.text_inches(title, style.TITLE) + 0.4)
    height = n * cell + (name_size / 72 if flat else 0.75 * longest) + 0.95

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    axes = figure.add_subplot(aspect="equal")
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    slant = {} if flat else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n), names, fontsize=name_size, **slant)
    axes.set_yticks(range(n), names, fontsize=name_size)
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=style.GREY, alpha=0.4)
    return _Grid(figure, axes, n, cell, compact)


def _fill(grid: _Grid, values: np.ndarray, colours: Colormap, scale: Normalize) -> None:
    edges = np.arange(len(values) + 1) - 0.5
    # cells, not an image: some viewers of PDF blur the pixels of a small one; past a thousand they are too many
    line = {"edgecolor": "white", "linewidth": 0.4} if grid.numbered else {}
    grid.axes.pcolormesh(edges, edges, values, cmap=colours, norm=scale, rasterized=not grid.numbered, **line)


def _write(grid: _Grid, texts: np.ndarray, colours: np.ndarray) -> None:
    widest = max((style.text_inches(line, 1) for text in texts.ravel() for line in text.split("\n")), default=0)
    size = min(style.SMALL, 0.85 * grid.cell / widest) if widest else style.SMALL
    for (row, column), text in np.ndenumerate(texts):
        if text:
            ink = _contrasting(colours[row, column])
            place = {"ha": "center", "va": "center", "in_layout": False}  # inside its cell it moves nothing
            grid.axes.text(column, row, text, color=ink, fontsize=size, linespacing=1.1, **place)


def _contrasting(colour: np.ndarray) -> str:
    """Black or white, whichever has more contrast (WCAG 2) on `colour`."""
    channels = colour[:3]
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"


def _add_colourbar(grid: _Grid, label: str, form: Callable[[float], str]) -> Axes | None:
    if grid.compact:
        return None  # the numbers have to do
    # an inset keeps the matrix's height, which a colourbar beside square cells does not
    side = grid.classes * grid.cell
    inset = grid.axes.inset_axes((1 + 0.12 / side, 0, 0.14 / side, 1))
    bar: Any = grid.figure.colorbar(grid.axes.collections[0], cax=inset, format=lambda value, _: form(value))
    bar.set_label(label)
    bar.ax.tick_params(length=2)
    bar.outline.set(color=style.GREY, alpha=0.4)
    bar.solids.set_rasterized(True)  # 256 neighbours with seams between them otherwise
    return bar.ax
