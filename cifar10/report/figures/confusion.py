"""What was taken for what: one classifier's confusion matrix, or how another one's differs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from cifar10.report.figures.style import GREY, PALETTE, SMALL, TEXT, TITLE, cut, in_style, signed, text_inches

# the blue stands where CIELAB lightness falls in a straight line from white to the dark end
FRACTIONS = LinearSegmentedColormap.from_list(
    "fractions", [(0.0, "#FFFFFF"), (0.63, PALETTE["blue"]), (1.0, "#00263F")]
)
# equal lightness on both sides
CHANGES = LinearSegmentedColormap.from_list("changes", [(0.0, "#9E4400"), (0.5, "#FFFFFF"), (1.0, "#00609C")])

MOST_CLASSES_WITH_NUMBERS = 30
LONGEST_NAME = 2.2  # inches


@in_style
def confusion_matrix_figure(
    matrix: Sequence[Sequence[int]], class_names: Sequence[str], title: str, normalise: bool = False
) -> Figure:
    """Draw counts, or per cent of the true class if normalise, coloured by their share of the true class.

    matrix: (C, C), rows true, columns predicted. The figure grows with the number of classes and the length of their
    names (cut at 2.2 inches); past 30 classes the cells stay without their numbers.
    """
    counts = _checked(matrix, class_names)
    fractions = _fractions(counts)
    figure, axes, cell = _new_matrix(class_names, title)
    _fill(axes, fractions, FRACTIONS, Normalize(0, 1))
    if len(class_names) <= MOST_CLASSES_WITH_NUMBERS:
        texts = np.vectorize(_percentage if normalise else str, otypes=[object])(fractions if normalise else counts)
        _write(axes, texts, FRACTIONS(fractions), cell)
    bar = _add_colourbar(axes, "fraction of the true class", side=len(class_names) * cell)
    if normalise:
        bar.set_ylabel("% of the true class")
        bar.yaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.0f}")
    return figure


@in_style
def confusion_difference_figure(
    matrix_a: Sequence[Sequence[int]], matrix_b: Sequence[Sequence[int]], class_names: Sequence[str], title: str
) -> Figure:
    """Draw b minus a in points (hundredths of the true class); blue where b is better, orange where it is worse.

    Better is more on the diagonal and less elsewhere. matrix_a, matrix_b: counts (C, C), rows true, columns predicted.
    """
    change = 100 * (_fractions(_checked(matrix_b, class_names)) - _fractions(_checked(matrix_a, class_names)))
    better = np.where(np.eye(len(change), dtype=bool), change, -change)
    most = max(1.0, np.abs(change).max())
    scale = Normalize(-most, most)
    figure, axes, cell = _new_matrix(class_names, title)
    _fill(axes, better, CHANGES, scale)
    if len(class_names) <= MOST_CLASSES_WITH_NUMBERS:
        texts = np.vectorize(lambda points: "" if abs(points) < 0.05 else signed(points, int(abs(points) < 9.95)))(
            change
        )
        _write(axes, texts, CHANGES(scale(better)), cell)
    bar = _add_colourbar(axes, "change in points of the true class's images", side=len(class_names) * cell)
    bar.yaxis.set_major_formatter(lambda points, _: f"{abs(points):g}")
    bar.set_title("better", fontsize=SMALL, loc="left")
    bar.text(0, -0.02, "worse", fontsize=SMALL, ha="left", va="top", transform=bar.transAxes)
    return figure


def _checked(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> np.ndarray:
    counts, n = np.asarray(matrix), len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"the matrix is {counts.shape}, but there are {n} class names")
    return counts


def _fractions(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _percentage(fraction: float) -> str:
    return "" if fraction == 0 else f"{100 * fraction:.{int(fraction < 0.0995)}f}"


def _new_matrix(class_names: Sequence[str], title: str) -> tuple[Figure, Axes, float]:
    """A figure with named rows and columns, its axes, and the inches of a cell."""
    n = len(class_names)
    # two columns of a paper for ten classes; the colourbar's label needs 3 inches, and 20 are enough for any number
    wanted = min(0.75, max(0.36, 4.5 / n)) if n <= MOST_CLASSES_WITH_NUMBERS else 0.2
    cell = min(max(wanted, 3 / n), 20 / n)
    # slanted lines of text stand 0.7 cells apart
    name_size = min(TEXT, 0.59 * 72 * cell)
    names = [cut(name, LONGEST_NAME, name_size) for name in class_names]
    longest = max(text_inches(name, name_size) for name in names)
    flat = longest < 0.9 * cell
    width = max(n * cell + longest + 1.5, text_inches(title, TITLE) + 0.4)
    height = n * cell + (name_size / 72 if flat else 0.75 * longest) + 0.95

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    axes = figure.add_subplot(aspect="equal")
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    slant = {} if flat else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n), names, fontsize=name_size, **slant)
    axes.set_yticks(range(n), names, fontsize=name_size)
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=GREY, alpha=0.4)
    return figure, axes, cell


def _fill(axes: Axes, values: np.ndarray, colours: Colormap, scale: Normalize) -> None:
    edges = np.arange(len(values) + 1) - 0.5
    # cells, not an image: some viewers of PDF blur the pixels of a small one; past a thousand they are too many
    many = len(values) > MOST_CLASSES_WITH_NUMBERS
    line = {} if many else {"edgecolor": "white", "linewidth": 0.4}
    axes.pcolormesh(edges, edges, values, cmap=colours, norm=scale, rasterized=many, **line)


def _write(axes: Axes, texts: np.ndarray, colours: np.ndarray, cell: float) -> None:
    widest = max(text_inches(text, 1) for text in texts.ravel())
    size = min(TEXT, 0.85 * cell / widest) if widest else TEXT
    for (row, column), text in np.ndenumerate(texts):
        if text:
            ink = _contrasting(colours[row, column])
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


def _contrasting(colour: np.ndarray) -> str:
    """Black or white, whichever has more contrast (WCAG 2) on `colour`."""
    channels = colour[:3]
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"


def _add_colourbar(axes: Axes, label: str, side: float) -> Axes:
    # an inset keeps the matrix's height, which a colourbar beside square cells does not
    inset = axes.inset_axes((1 + 0.12 / side, 0, 0.14 / side, 1))
    bar = axes.figure.colorbar(axes.collections[0], cax=inset)
    bar.set_label(label)
    bar.ax.tick_params(length=2)
    bar.outline.set(color=GREY, alpha=0.4)
    bar.solids.set_rasterized(True)  # 256 neighbours with seams between them otherwise
    return bar.ax
