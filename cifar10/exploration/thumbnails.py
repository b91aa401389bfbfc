"""Pictures small enough for a page: WebP in data URIs."""

import base64
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

SIDE = 80  # pixels
SHEET = 12_000_000  # pixels of a sheet of tiles at most: 4 MB


def thumbnail(image: np.ndarray) -> str:
    """A picture, uint8 (3, S, S), as a data URI."""
    return encoded(shrunk(image, SIDE))


def sheet(images: Iterator[np.ndarray], count: int, side: int) -> tuple[str, int, int]:
    """All pictures, uint8 (3, S, S), on one sheet, row by row: its data URI, the columns, and a tile's side.

    side: S; a tile is smaller where many pictures would make the page too large.
    """
    tile = max(16, min(64, side, int((SHEET / count) ** 0.5) // 8 * 8))  # compression works in blocks of 8
    columns = int(np.ceil(count**0.5))
    canvas = Image.new("RGB", (columns * tile, -(-count // columns) * tile))
    for place, image in enumerate(images):
        canvas.paste(shrunk(image, tile), (place % columns * tile, place // columns * tile))
    return encoded(canvas), columns, tile


def shrunk(image: np.ndarray, side: int) -> Image.Image:
    """As a Pillow image, at most this large."""
    picture = Image.fromarray(image.transpose(1, 2, 0))
    return picture if picture.width <= side else picture.resize((side, side), Image.Resampling.LANCZOS)


def encoded(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
