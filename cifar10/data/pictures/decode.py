"""One encoded picture as upright RGB pixels: what stands between a source's files and the store."""

import logging
import math
import stat
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION
from torch import Tensor

from cifar10.data.preprocessing import WHITE
from cifar10.errors import cause_of

# Neither what runs other programs (EPS) nor what takes any file for its own (TGA); MPO is found as a JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF", "PPM", "ICO", "DDS", "PCX", "QOI", "SGI")
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
FULL_SCALE = ("PPM", "JPEG2000")  # Pillow spreads what these say is white over all 16 bits
WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))  # of cameras, scanners and medical devices
MAX_SAMPLE_VALUE, WHITE_IS_ZERO = 281, 0  # a tag of TIFF and a value of its PhotometricInterpretation

# Once for the process: a filter that comes and goes with each call is not safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class UnreadablePicture(ValueError):
    """The message is the reason, short and on one line."""


def read_picture(picture: bytes | Path, at_least: int = 0, background: tuple[int, ...] = WHITE) -> Tensor:
    """An encoded picture, or the file that holds it, as upright RGB: contiguous uint8 (3, H, W).

    The content says what it is, not the file's name: one of `FORMATS`, or HEIF with the package pillow-heif. Of several
    frames or pages the first is taken. EXIF's orientation is applied and transparency is composed onto `background`.
    ICC profiles are not applied: torchvision and timm, whose networks are fine-tuned, do not apply them either.

    at_least: a JPEG whose sides divide evenly is decoded at 1/2, 1/4 or 1/8 of its size, several times faster, as long
    as both sides keep at least twice that; 0 means full size. After `fit`, photographs then differ by 0.4 of 255 on
    average and 4 at most, which is less than between two resizing filters; hard-edged noise by up to 25.

    Grey pixels of 16 bits are divided by the largest value of the smallest usual bit depth (8, 10, 12, 14, 16) that
    holds them, as few such files say that their scanner had 12. A TIFF's own word on its depth or largest value counts;
    without it, pictures that are much darker than the rest of their set come out brighter. 16-bit colour is cut to its
    upper 8 bits, and refused if the first 4 are empty. Floating-point pixels must be in [0, 1].

    Raises UnreadablePicture for a picture that is damaged, truncated or larger than Pillow's limit, for pixels without
    a known white, and for a file that cannot be read.
    """
    try:
        with _open_file(picture) as file, _open_picture(file) as image:
            return _pixels(_load(image, at_least), background)
    except (UnreadablePicture, MemoryError):
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadablePicture(f"more than {limit / 1e6:.0f} million pixels: make it smaller") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and many more for damaged pictures
        from_disk = isinstance(error, OSError) and error.errno
        raise UnreadablePicture(cause_of(error) if from_disk else f"cannot be decoded: {cause_of(error)}") from error


def pixels_of(image: Image.Image, background: tuple[int, ...] = WHITE) -> Tensor:
    """What `read_picture` gives for a picture that is open in Pillow, which stays as it is."""
    upright = image
    with suppress(Exception):  # damaged EXIF data
        upright = ImageOps.exif_transpose(image)
        upright.format = image.format
    return _pixels(upright, background)


def _open_file(picture: bytes | Path) -> BinaryIO:
    if isinstance(picture, bytes):
        return BytesIO(picture)
    if not stat.S_ISREG(picture.stat().st_mode):  # reading from a pipe would wait forever
        raise UnreadablePicture("not a regular file")
    return picture.open("rb")


def _open_picture(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(12)
    if start[4:8] != b"ftyp" or start[8:] not in HEIF_BRANDS:
        raise UnreadablePicture("not a picture of a kind that can be read" if start else "an empty file")
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadablePicture("HEIC needs another package: pip install 'cifar10[heic]'") from None
    register_heif_opener()
    try:
        return Image.open(file, formats=("HEIF",))
    except UnidentifiedImageError:
        raise UnreadablePicture("a damaged HEIC picture") from None


def _load(image: Image.Image, at_least: int) -> Image.Image:
    """Decode the pixels and turn them upright."""
    if at_least and image.format in ("JPEG", "MPO"):
        divisor = math.gcd(8, *image.size)  # else the picture would shift and show what pads it (Pillow's #3419)
        width, height = (max(side // divisor, 2 * at_least) for side in image.size)
        image.draft(None, (width, height))
    tile = str(getattr(image, "tile", ""))
    cut = ";16" in tile and not image.mode.startswith("I")  # Pillow drops the lower 8 bits of 16-bit colour
    image.load()
    extrema: Any = image.getextrema() if cut else ()
    if cut and 0 < max(high for _, high in extrema[:3]) < 16:
        raise UnreadablePicture("16-bit colour whose upper 4 bits are empty: save it with 8 bits")
    with suppress(Exception):  # damaged EXIF data
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _pixels(image: Image.Image, background: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.array(_rgb(image, background))).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # from which Pillow knows no way to RGBA
        image = image.convert("LA")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, tuple(background))
    canvas.paste(image, mask=image)
    return canvas


def _grey(image: Image.Image) -> Image.Image:
    """Grey pixels of 16 or 32 bits in 8 bits, see `read_picture`."""
    pixels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    low, high = pixels.min(), pixels.max()
    white = 1 if image.mode == "F" else _white(high, image.format, tags)
    if not 0 <= low <= high <= white:  # written so that NaN is refused, too
        raise UnreadablePicture(f"pixels from {low:g} to {high:g}: must be from 0 to 65535, or fractions from 0 to 1")
    values = np.rint(pixels * np.float32(255 / white)).astype(np.uint8)
    grey = Image.fromarray(255 - values if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO else values)
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(pixels != image.info["transparency"]))
    return grey


def _white(largest: int, file_format: str | None, tags: dict[int, Any]) -> int:
    """The whole number that is white in a picture whose largest value is `largest`; 65535 if that is larger."""
    if file_format in FULL_SCALE:
        return 65535
    (bits, *_), told = tags.get(BITSPERSAMPLE, (16,)), tags.get(MAX_SAMPLE_VALUE, ())
    known = [2**bits - 1] if bits < 16 else [value for value in told if isinstance(value, int)]
    return next((white for white in WHITES if white >= max([largest, *known])), WHITES[-1])
