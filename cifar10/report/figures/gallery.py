"""Images, each with its label and the prediction."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cifar10.report.figures import style
from cifar10.report.numbers import percent

LINE = 1.25 * style.SMALL / 72  # inches
GAP = 0.08  # inches between two images


@style.in_style
def gallery_figure(
    images: np.ndarray,
    captions: Sequence[tuple[str, str, float]],
    title: str,
    files: Sequence[str] | None = None,
    width: float = style.DOUBLE,
) -> Figure:
    """Draw images, pixel by pixel, in rows, and below each one its true class, the predicted one and the confidence.

    images: uint8 (N, 3, H, W). captions: (true, predicted, confidence), one an image, the confidence a fraction; names
    are cut where a column ends. files: a name for each image, below the rest.
    """
    if len(images) != len(captions) or not len(images):
        raise ValueError(f"images, captions: there are {len(images)} images and {len(captions)} captions")
    columns = 8 if width > style.SINGLE else 4
    shape = np.array(images.shape[2:])
    side = width / columns - GAP  # of the longer side of an image
    high, wide = side * shape / shape.max()
    row = high + (3 + (files is not None)) * LINE + 2 * GAP
    top = 0.35
    size = (width, top + row * -(-len(images) // columns))
    figure = Figure(figsize=size)
    figure.text(
        0.5, 1 - 0.08 / size[1], style.cut(title, width - 0.2, style.TITLE), fontsize=style.TITLE, ha="center", va="top"
    )
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))  # inches from the upper left corner
    axes.set_axis_off()
    for place, (image, (true, predicted, confidence)) in enumerate(zip(images, captions, strict=True)):
        x, y = GAP / 2 + place % columns * width / columns, top + place // columns * row
        extent = (x + (side - wide) / 2, x + (side + wide) / 2, y + high, y)
        axes.imshow(image.transpose(1, 2, 0), interpolation="none", extent=extent, aspect="auto")
        lines = [style.cut(true, side), style.cut(f"→ {predicted}", side), percent(confidence, 0)]
        lines += [] if files is None else [style.cut(files[place], side)]
        for number, text in enumerate(lines):
            axes.text(
                x + side / 2, y + high + GAP / 2 + number * LINE, text, fontsize=style.SMALL, ha="center", va="top"
            )
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))  # imshow sets them to its image
    return figure
