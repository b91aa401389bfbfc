"""What holds for reading any picture that Pillow writes, and for any bytes."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10.data.pictures.decode import UnreadablePicture, read_picture
from tests.pictures import BEST, ORIENTED, UPRIGHT, WRITTEN, encode, exif, is_written

pytestmark = [
    pytest.mark.promise("bad inputs"),
    pytest.mark.filterwarnings("ignore"),  # pytest undoes the filter for Pillow's
]
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F")
DEEP = {"I;16": (65535, np.uint16), "I": (65535, np.int32), "F": (1, np.float32)}  # what is white
KINDS = [
    (mode, file_format)
    for mode in MODES
    for file_format in WRITTEN
    if file_format != "ICO"  # which has fixed sizes
    and (mode not in DEEP or file_format in ("PNG", "TIFF", "PPM", "JPEG2000"))  # others clip what they write
    and is_written(mode, file_format)
]
BLOCK = 16  # pixels; what a JPEG mixes


def of_mode(blocks, size, mode):
    """Blocks of colour, the first one white, in a mode, and what it looks like in RGB."""
    blocks = np.concatenate([np.full((1, *blocks.shape[1:]), 255, np.uint8), blocks])
    pixels = np.kron(blocks, np.ones((BLOCK, BLOCK, 1), np.uint8))[: size[1], : size[0]]
    image = Image.fromarray(pixels)
    if mode in DEEP:
        grey = np.asarray(image.convert("L"))
        deep = (
            grey / np.float32(255) if mode == "F" else (grey * 257.0).astype(np.uint16 if mode == "I;16" else np.int32)
        )
        return Image.fromarray(deep), Image.fromarray(grey).convert("RGB")
    image = image.convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    return image, image.convert("RGB")


@settings(max_examples=200, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    orientation=st.sampled_from(sorted(UPRIGHT)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_picture_that_pillow_writes_is_read_with_its_size_and_colours(kind, orientation, size, seed):
    mode, file_format = kind
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image, looks = of_mode(blocks, size, mode)
    options = dict(BEST.get(file_format, {}))
    if file_format in ORIENTED:
        options["exif"] = exif(orientation)
    picture = read_picture(encode(image, file_format, **options)).permute(1, 2, 0).numpy()
    wanted = UPRIGHT[orientation if file_format in ORIENTED else 1](np.asarray(looks))
    assert picture.shape == wanted.shape
    assert np.median(np.abs(picture.astype(int) - wanted)) <= 6


def corrupt(encoded, rng):
    damaged = bytearray(encoded)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place = rng.randrange(min(len(damaged), rng.choice([20, 60, 200, 10**6])))
        match rng.randrange(4):
            case 0:
                damaged[place] = rng.choice([0, 255, rng.randrange(256)])
            case 1:
                damaged[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 2:
                del damaged[place + 1 : place + rng.randrange(2, 9)]
            case 3:
                damaged[place] ^= 1 << rng.randrange(8)
    return bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])


@pytest.mark.parametrize("file_format", [*WRITTEN, "HEIF"])
def test_damaged_pictures_are_read_or_refused_in_a_line(file_format, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # a damaged size must not make the test slow
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    modes = [mode for mode in MODES if is_written(mode, file_format)]
    whole = [encode(of_mode(np.zeros((3, 4, 3), np.uint8), (64, 48), mode)[0], file_format) for mode in modes]
    rng, read = random.Random(file_format), 0
    for number in range(300):
        try:
            picture = read_picture(corrupt(rng.choice(whole), rng), at_least=number % 2)
        except UnreadablePicture as unreadable:
            reason = str(unreadable)
            assert 0 < len(reason) < 150 and len(reason.splitlines()) == 1 and "object at" not in reason
        else:
            read += 1
            assert picture.shape[0] == 3 and picture.numel()
    assert read < 300


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P5 ", b"\0\0\1\0", b"8BPS\0\1",
          b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypavif"]  # fmt: skip


@settings(max_examples=200, derandomize=True)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_random_bytes_are_no_picture(start, rest):
    try:
        read_picture(start + rest)
    except UnreadablePicture as unreadable:
        assert len(str(unreadable).splitlines()) == 1 and "object at" not in str(unreadable)
