"""Pictures in every format and mode that Pillow writes, for tests of reading them."""

from io import BytesIO

import numpy as np
from PIL import Image

from cifar10.data.pictures.decode import FORMATS

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

Image.init()
WRITTEN = [name for name in FORMATS if name in Image.SAVE]  # AVIF only where Pillow is built with it
ORIENTED = [name for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") if name in WRITTEN]  # that have EXIF data
BEST = {
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "JPEG": {"quality": 95},
    "ICO": {"sizes": [(64, 32)]},
}
UPRIGHT = {  # what EXIF's orientation makes of stored pixels (H, W, 3)
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def encode(image, file_format, **options):
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def is_written(mode, file_format):
    try:
        return bool(encode(Image.new(mode, (8, 8)), file_format))
    except (OSError, KeyError, ValueError):
        return False


def quarters(mode="RGB", size=(64, 32)):
    """Red and green above blue and white."""
    image = Image.fromarray(np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)).resize(size, Image.Resampling.NEAREST)
    return image if mode == "RGB" else image.convert(mode)
