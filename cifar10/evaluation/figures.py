"""The figures of a run, as matplotlib Figures; no pyplot, so they are drawn headless and share no global state."""

import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

# Okabe & Ito 2008, "Color Universal Design": told apart under every common colour vision deficiency
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
GREY = "#595959"

# the blue stands where CIELAB lightness falls in a straight line from white to the dark end
FRACTIONS = LinearSegmentedColormap.from_list(
    "fractions", [(0.0, "#FFFFFF"), (0.63, PALETTE["blue"]), (1.0, "#00263F")]
)
# from here on white text has more contrast on FRACTIONS than black
DARK_FROM = 0.59

TITLE_SIZE = 12
MOST_CLASSES_WITH_COUNTS = 30
LONGEST_NAME = 32
CHARACTER_WIDTH = 0.62  # of the font size: a little more than DejaVu Sans's mean

ROOM_FOR_PHASE = 0.35  # of a panel's width: what a phase's name needs to stand on one line
CURVES = {"train": ("train", PALETTE["blue"], "o"), "val": ("validation", PALETTE["vermilion"], "s")}


def confusion_matrix_figure(matrix: Sequence[Sequence[int]], class_names: Sequence[str], title: str) -> Figure:
    """Draw counts, coloured by their share of the true class.

    matrix: (C, C), rows true, columns predicted. The figure grows with the number of classes and the length of their
    names (cut at 32 characters); past 30 classes the cells stay without their counts.
    """
    counts = np.asarray(matrix)
    n = len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"the matrix is {counts.shape}, but there are {n} class names")
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in class_names]
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = _cell_inches(n)
    # slanted lines of text stand 0.7 cells apart
    name_size = min(10.0, 0.59 * 72 * cell)
    name_inches = _inches(max(names, key=len), name_size)
    flat = name_inches < 0.9 * cell
    width = max(n * cell + name_inches + 1.9, _inches(title, TITLE_SIZE) + 0.4)
    height = n * cell + (name_size / 72 if flat else 0.75 * name_inches) + 1.1

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    axes = figure.add_subplot()
    image = axes.imshow(fractions, cmap=FRACTIONS, vmin=0, vmax=1)
    axes.set_xlabel("predicted", fontsize=11)
    axes.set_ylabel("true", fontsize=11)
    slant = {} if flat else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n), names, fontsize=name_size, parse_math=False, **slant)
    axes.set_yticks(range(n), names, fontsize=name_size, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set(color="#BFBFBF", linewidth=0.6)
    if n <= MOST_CLASSES_WITH_COUNTS:
        _write_counts(axes, counts, fractions, cell)
    _add_colourbar(axes, image, side=n * cell)
    return figure


def learning_curves_figure(
    rows: Sequence[Mapping[str, float | None]], switch_epoch: int | None = None, title: str = ""
) -> Figure:
    """Draw loss and accuracy over the epochs, training and validation, with the epoch of lowest `val/loss` ringed.

    rows: one an epoch, with `epoch` (from 0; drawn from 1) and `train/loss`, `val/loss`, `train/acc`, `val/acc`,
    each of which may be missing, None or NaN: a gap. switch_epoch: the first epoch (from 0) of phase 2; its line
    is left out where all rows lie on one side of it.
    """
    if not rows:
        raise ValueError("there is no epoch to draw")
    rows = sorted(rows, key=lambda row: row["epoch"])
    epochs = np.array([int(row["epoch"]) + 1 for row in rows])
    val_loss = _column(rows, "val/loss")
    best = None if np.isnan(val_loss).all() else int(np.nanargmin(val_loss))

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric, name in zip(panels, ("loss", "acc"), ("loss (nats)", "accuracy"), strict=True):
        for stage, (label, colour, marker) in CURVES.items():
            values = _column(rows, f"{stage}/{metric}")
            axes.plot(epochs, values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)
        if best is not None:
            _mark_best(axes, epochs[best], _column(rows, f"val/{metric}")[best])
        _dress(axes, epochs, name)
        if switch_epoch is not None and epochs[0] <= switch_epoch < epochs[-1]:
            _mark_switch(axes, switch_epoch + 0.5)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG whole or not at all; its folder must exist."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        figure.savefig(temporary, format="png", dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _cell_inches(n: int) -> float:
    """Side of a cell of a matrix of n classes: generous for a few, at most 20 inches for them all."""
    wanted = min(0.9, max(0.4, 5.6 / n)) if n <= MOST_CLASSES_WITH_COUNTS else 0.2
    return min(wanted, 20 / n)


def _inches(text: str, size: float) -> float:
    return len(text) * CHARACTER_WIDTH * size / 72


def _write_counts(axes: Axes, counts: np.ndarray, fractions: np.ndarray, cell: float) -> None:
    digits = len(str(counts.max()))
    size = min(11.0, 0.85 * 72 * cell / (CHARACTER_WIDTH * digits))
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if fractions[row, column] >= DARK_FROM else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def _add_colourbar(axes: Axes, image: AxesImage, side: float) -> None:
    # an inset keeps the matrix's height, which a colourbar beside square cells does not
    inset = axes.inset_axes((1 + 0.15 / side, 0, 0.16 / side, 1))
    bar = axes.figure.colorbar(image, cax=inset)
    bar.set_label("fraction of the true class", fontsize=10)
    bar.ax.tick_params(labelsize=9, length=2)
    bar.outline.set(color="#BFBFBF", linewidth=0.6)


def _column(rows: Sequence[Mapping[str, float | None]], key: str) -> np.ndarray:
    return np.array([math.nan if row.get(key) is None else float(row[key]) for row in rows])


def _dress(axes: Axes, epochs: np.ndarray, name: str) -> None:
    first, last = int(epochs[0]), int(epochs[-1])
    count = last - first + 1
    step = next(step for power in range(9) for step in (10**power, 5 * 10**power) if count <= 12 * step)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.margins(y=0.08)
    axes.set_xticks(sorted({first, *(epoch for epoch in range(first, last + 1) if epoch % step == 0)}))
    axes.set_xlabel("epoch", fontsize=11)
    axes.set_ylabel(name, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_best(axes: Axes, epoch: int, value: float) -> None:
    ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": GREY, "clip_on": False}
    axes.plot(epoch, value, linestyle="none", label=f"lowest validation loss: epoch {epoch}", **ring)


def _mark_switch(axes: Axes, x: float) -> None:
    axes.axvline(x, color=GREY, linestyle="--", linewidth=1)
    left, right = axes.get_xlim()
    before = (x - left) / (right - left)
    # above the panel, where no curve can be
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "bottom"}
    sides = (("phase 1: head", before, "right", -5), ("phase 2: fine-tuning", 1 - before, "left", 5))
    for text, share, alignment, shift in sides:
        if share < ROOM_FOR_PHASE:
            text = text.replace(": ", ":\n")
        axes.annotate(text, (x, 1), xytext=(shift, 3), ha=alignment, fontsize=9, color=GREY, **place)
