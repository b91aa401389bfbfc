"""Any picture is read with the right size and colours; what cannot be read has a short reason."""

import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from cifar10.data.pictures.decode import UnreadablePicture, read_picture
from cifar10.data.preprocessing import fit
from tests.conftest import PROJECT
from tests.pictures import (
    BEST,
    BLACK,
    BLUE,
    GREEN,
    ORIENTED,
    RED,
    UPRIGHT,
    WHITE,
    WRITTEN,
    encode,
    exif,
    is_written,
    quarters,
)

pytestmark = [
    pytest.mark.promise("bad inputs"),
    pytest.mark.filterwarnings("ignore"),  # pytest undoes the filter for Pillow's
]


def colours(picture):
    """The colours in the middle of the four quarters, row by row."""
    height, width = picture.shape[1:]
    return [tuple(picture[:, y, x].tolist()) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]


def assert_close(found, wanted, tolerance=0):
    assert np.abs(np.array(found, int) - np.array(wanted, int)).max() <= tolerance, found


def assert_quarters(picture, tolerance=0, size=(64, 32)):
    assert picture.shape == (3, *size[::-1]) and picture.dtype == torch.uint8 and picture.is_contiguous()
    assert_close(colours(picture), [RED, GREEN, BLUE, WHITE], tolerance)


def ramp(bits):
    """16 x 16 whole numbers from 0 to the largest of so many bits."""
    return np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)


def grey(picture):
    assert (picture == picture[:1]).all()
    return picture[0].numpy()


def reason(picture):
    with pytest.raises(UnreadablePicture) as caught:
        read_picture(picture)
    words = str(caught.value)
    assert words and len(words.splitlines()) == 1 and "object at" not in words
    return words


# formats

TOLERANCE = {"JPEG": 4, "AVIF": 4}


@pytest.mark.parametrize("name", ["picture", "picture.jpg", "picture.txt"])
@pytest.mark.parametrize("file_format", WRITTEN)
def test_every_format_is_read_whatever_the_file_is_called(tmp_path, file_format, name):
    encoded = encode(quarters(), file_format, **BEST.get(file_format, {}))
    (tmp_path / name).write_bytes(encoded)
    for picture in (encoded, tmp_path / name):
        assert_quarters(read_picture(picture), TOLERANCE.get(file_format, 0))


@pytest.mark.parametrize(
    "orientation", [1, 3, 6, 8]
)  # that cameras write; pillow-heif does not write the mirrored ones
@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heif_is_read_where_its_package_is_and_asks_for_it_where_it_is_not(monkeypatch, brand, orientation):
    pytest.importorskip("pillow_heif").register_heif_opener()
    encoded = encode(quarters(), "HEIF", exif=exif(orientation).tobytes(), quality=-1)
    encoded = encoded.replace(b"ftypheic", b"ftyp" + brand, 1)
    wanted = UPRIGHT[orientation](np.array(quarters())).transpose(2, 0, 1)
    picture = read_picture(encoded)
    assert picture.shape == wanted.shape
    assert_close(colours(picture), colours(wanted), 4)
    assert "damaged" in reason(encoded[:40])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install 'cifar10[heic]'" in reason(encoded)


SEVERAL = {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "MPO": {"quality": 95}}


@pytest.mark.parametrize("file_format", SEVERAL)
def test_of_several_frames_or_pages_the_first_is_read(file_format):
    others = [Image.new("RGB", (64, 32), colour) for colour in (BLACK, RED)]
    encoded = encode(quarters(), file_format, save_all=True, append_images=others, **SEVERAL[file_format])
    assert Image.open(BytesIO(encoded)).n_frames == 3
    assert_quarters(read_picture(encoded), 4)


# modes


@pytest.mark.parametrize(
    "mode, file_format",
    [
        (mode, file_format)
        for mode in ("RGB", "RGBA", "RGBX", "CMYK", "P", "PA", "HSV", "YCbCr", "LAB")
        for file_format in WRITTEN
        if is_written(mode, file_format)
    ],
)
def test_colours_are_right_in_every_mode(mode, file_format):
    image = quarters("RGBA" if mode == "PA" else "RGB").convert(mode)
    tolerance = 22 if mode == "LAB" else 4  # LAB in 8 bits is coarse
    assert_quarters(read_picture(encode(image, file_format, **BEST.get(file_format, {}))), tolerance)


@pytest.mark.parametrize(
    "mode, file_format",
    [(mode, name) for mode in ("1", "L", "LA") for name in WRITTEN if name != "ICO" and is_written(mode, name)],
)
def test_grey_is_right_in_every_mode(mode, file_format):
    image = Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((16, 16))).astype(np.uint8)).convert(mode)
    picture = read_picture(encode(image, file_format, **BEST.get(file_format, {})))
    assert_close(colours(picture), [BLACK, WHITE, WHITE, BLACK], 2)


def test_a_cmyk_jpeg_stored_as_ycck_has_its_colours():
    cyan, magenta, yellow, black = quarters("CMYK").split()
    ycc = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
    stored = Image.merge("CMYK", [band.point(lambda value: 255 - value) for band in ycc] + [black])
    encoded = bytearray(encode(stored, "JPEG", quality=95))
    encoded[encoded.index(b"Adobe") + 11] = 2  # the transform: YCCK
    assert_quarters(read_picture(bytes(encoded)), 4)


def test_an_icc_profile_is_not_applied_and_a_damaged_one_does_no_harm():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (profile, profile[:100], b"no profile"):
        assert_quarters(read_picture(encode(quarters(), "PNG", icc_profile=icc)))


# transparency: the shape, on the right, is only in the alpha channel

SHAPE = np.repeat([[0, 255]], 8, axis=0).repeat(8, axis=1).astype(np.uint8)


def premultiplied(mode):
    """A TIFF whose alpha channel is said to be multiplied into its colours; Pillow only writes the other kind."""
    encoded = encode(silhouette(mode), "TIFF")
    extra_samples = struct.pack("<HHI", 338, 3, 1)
    assert encoded.count(extra_samples + b"\2") == 1
    return encoded.replace(extra_samples + b"\2", extra_samples + b"\1")


def silhouette(mode="RGBA"):
    image = Image.new("L", (16, 8), 0).convert(mode)
    image.putalpha(Image.fromarray(SHAPE))
    return image


def transparent_colour(mode, key, other, file_format="PNG"):
    image = Image.fromarray(np.where(SHAPE, other, key).astype(np.uint16 if mode == "I;16" else np.uint8))
    return encode(image.convert(mode), file_format, transparency=(key,) * 3 if mode == "RGB" else key)


def palette(transparency, file_format="PNG"):
    image = Image.fromarray((SHAPE > 0).astype(np.uint8), "P")
    image.putpalette([*RED, *BLACK])
    return encode(image, file_format, transparency=transparency)


TRANSPARENT = {
    "RGBA PNG": lambda: encode(silhouette(), "PNG"),
    "RGBA WebP": lambda: encode(silhouette(), "WEBP", lossless=True),
    "RGBA TIFF": lambda: encode(silhouette(), "TIFF"),
    "RGBA ICO": lambda: encode(silhouette(), "ICO", sizes=[(16, 8)]),
    "RGBA JPEG 2000": lambda: encode(silhouette(), "JPEG2000"),
    "LA PNG": lambda: encode(silhouette("LA"), "PNG"),
    "LA TIFF": lambda: encode(silhouette("LA"), "TIFF"),
    "premultiplied RGBA TIFF": lambda: premultiplied("RGBA"),
    "premultiplied LA TIFF": lambda: premultiplied("LA"),
    "palette PNG with a transparent index": lambda: palette(0),
    "palette PNG with an alpha for each index": lambda: palette(b"\0\xff"),
    "palette GIF": lambda: palette(0, "GIF"),
    "grey PNG with a transparent value": lambda: transparent_colour("L", 200, 0),
    "RGB PNG with a transparent colour": lambda: transparent_colour("RGB", 200, 0),
    "16-bit grey PNG with a transparent value": lambda: transparent_colour("I;16", 50_000, 0),
    "one-bit PNG with a transparent value": lambda: transparent_colour("1", 255, 0),
}


@pytest.mark.parametrize("background", [WHITE, (10, 200, 30)])
@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_composed_onto_the_background(name, background):
    picture = read_picture(TRANSPARENT[name](), background=background)
    assert picture.shape == (3, 8, 16)
    assert_close(colours(picture), [background, BLACK] * 2)


def test_half_transparent_pixels_are_mixed_with_the_background():
    picture = read_picture(encode(Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG"), background=(0, 0, 100))
    assert_close(colours(picture), [(51, 0, 80)] * 4, 1)


# orientation


@pytest.mark.parametrize("at_least", [0, 4])
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ORIENTED)
def test_pictures_are_turned_as_the_camera_was_held(file_format, orientation, at_least):
    options = BEST.get(file_format, {})
    wanted = UPRIGHT[orientation](np.array(quarters())).transpose(2, 0, 1)
    picture = read_picture(encode(quarters(), file_format, exif=exif(orientation), **options), at_least)
    reduced = 4 if file_format == "JPEG" and at_least else 1
    assert picture.shape == (3, wanted.shape[1] // reduced, wanted.shape[2] // reduced)
    assert_close(colours(picture), colours(wanted), 4)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damaged", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nothing"])
def test_damaged_exif_data_does_no_harm(file_format, damaged):
    assert_quarters(read_picture(encode(quarters(), file_format, exif=damaged, **BEST.get(file_format, {}))), 4)


# depth


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_any_usual_depth_has_black_and_white(bits, file_format):
    picture = read_picture(encode(Image.fromarray(ramp(bits)), file_format))
    assert_close(grey(picture), ramp(8), 1)


@pytest.mark.parametrize("order", "<>")
def test_a_tiff_of_either_byte_order_is_read_alike(order):
    encoded = encode(Image.fromarray(ramp(12).astype(f"{order}u2")), "TIFF")
    assert encoded[:2] == (b"II" if order == "<" else b"MM")
    assert_close(grey(read_picture(encoded)), ramp(8), 1)


def test_what_a_tiff_says_of_its_largest_value_counts():
    dark = Image.fromarray(ramp(10))  # of a camera of 12 bits
    assert grey(read_picture(encode(dark, "TIFF"))).max() == 255
    assert_close(grey(read_picture(encode(dark, "TIFF", tiffinfo={281: 4095}))), ramp(6), 1)


def test_a_tiff_of_twelve_bits_is_scaled_by_them():
    tags = {256: (3, 2), 257: (3, 1), 258: (3, 12), 259: (3, 1), 262: (3, 1), 273: (4, 200), 278: (3, 1), 279: (4, 3)}
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    encoded = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries
    picture = read_picture(encoded.ljust(200, b"\0") + b"\x10\x00\x00")  # 0x100 and 0
    assert grey(picture).tolist() == [[16, 0]]


def test_a_tiff_whose_white_is_zero_is_inverted():
    encoded = encode(Image.fromarray(ramp(12)), "TIFF", tiffinfo={262: 0})
    assert_close(grey(read_picture(encoded)), 255 - ramp(8), 1)


def test_what_a_pgm_says_is_white_is_white():
    encoded = b"P5 16 16 4095\n" + (ramp(12) // 8).astype(">u2").tobytes()
    assert_close(grey(read_picture(encoded)), ramp(8) // 8, 1)


def test_a_dark_jpeg_2000_of_16_bits_stays_dark():
    assert_close(grey(read_picture(encode(Image.fromarray(ramp(12)), "JPEG2000"))), ramp(4), 1)


def test_whole_numbers_of_32_bits_are_read_as_far_as_their_white_is_known():
    assert_close(grey(read_picture(encode(Image.fromarray(ramp(12).astype(np.int32)), "TIFF"))), ramp(8), 1)
    for numbers in (ramp(16).astype(np.int32) * 2, ramp(12).astype(np.int32) - 1024):
        assert "must be from 0 to 65535" in reason(encode(Image.fromarray(numbers), "TIFF"))


def test_fractions_are_read_from_0_to_1_and_nothing_else():
    fractions = (ramp(8) / 255).astype(np.float32)
    assert_close(grey(read_picture(encode(Image.fromarray(fractions), "TIFF"))), ramp(8))
    for wrong in (fractions * 255, fractions - 0.5, np.where(fractions > 0.5, np.nan, fractions), fractions + np.inf):
        assert "fractions from 0 to 1" in reason(encode(Image.fromarray(wrong.astype(np.float32)), "TIFF"))


def deep_png(pixels):
    """A PNG of 16-bit colour, which Pillow cannot write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_is_read_and_refused_where_its_upper_bits_are_empty(channels):
    pixels = np.stack([ramp(16), ramp(16)[::-1], ramp(16).T, np.full((16, 16), 65535, np.uint16)], axis=-1)
    pixels = pixels[..., [0, -1]] if channels == 2 else pixels[..., :channels]
    colour = pixels[..., [0, 0, 0] if channels == 2 else [0, 1, 2]]
    assert_close(read_picture(deep_png(pixels)).permute(1, 2, 0).numpy(), colour // 257, 1)
    assert read_picture(deep_png(pixels[:1, :1])).shape == (3, 1, 1)
    pixels[..., :3] //= 16
    assert "upper 4 bits are empty" in reason(deep_png(pixels))


# size

SIZES = [(1, 1), (1, 20_000), (20_000, 1), (2, 20_000), (5000, 10), (10, 5000)]


@pytest.mark.parametrize("at_least", [0, 1, 64])
@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_any_shape_are_read(size, at_least):
    for file_format in ("PNG", "JPEG"):
        picture = read_picture(encode(Image.new("RGB", size, (10, 200, 30)), file_format), at_least)
        assert file_format == "JPEG" or picture.shape == (3, *size[::-1])
        assert_close(colours(picture), [(10, 200, 30)] * 4, 3)


@pytest.mark.parametrize(
    "side, at_least, wanted",
    [(512, 0, 512), (512, 32, 64), (512, 33, 128), (512, 64, 128), (512, 128, 256), (512, 129, 512), (512, 999, 512),
     (500, 32, 125), (502, 32, 251), (501, 32, 501)],
)  # fmt: skip
@pytest.mark.parametrize("mode, file_format", [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "MPO")])
def test_a_jpeg_is_decoded_smaller_but_keeps_twice_the_pixels_needed(mode, file_format, side, at_least, wanted):
    pages = {"save_all": True, "append_images": [quarters()]} if file_format == "MPO" else {}
    encoded = encode(quarters(mode, (side, side)), file_format, quality=95, **pages)
    picture = read_picture(encoded, at_least)
    assert picture.shape == (3, wanted, wanted)
    assert_close(colours(picture), colours(read_picture(encoded)), 4)


@pytest.mark.parametrize("size", [(800, 600), (808, 600), (1000, 1000)])
def test_a_photograph_that_is_decoded_smaller_fits_to_the_same_pixels(size):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    encoded = encode(smooth, "JPEG", quality=90)
    whole, smaller = read_picture(encoded), read_picture(encoded, 64)
    assert smaller.shape != whole.shape
    difference = (fit(whole, 64).int() - fit(smaller, 64).int()).abs()
    assert difference.max() <= 4 and difference.float().mean() < 0.5


# what cannot be read


def test_a_picture_cut_short_is_refused_with_a_reason():
    for file_format in WRITTEN:
        encoded = encode(quarters(), file_format, **BEST.get(file_format, {}))
        for share in (0.1, 0.5, 0.8):
            reason(encoded[: int(len(encoded) * share)])
    assert "truncated" in reason(encode(quarters(size=(256, 128)), "JPEG")[:-20])


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 1000, b"<html>404</html>", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_picture_is_refused_with_a_reason(content, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert reason(content) == reason(tmp_path / "x.jpg")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket.png"))
    for name in ("pipe", "folder", "socket"):
        assert reason(tmp_path / f"{name}.png") == "not a regular file"
    for name in ("link", "missing"):
        assert reason(tmp_path / f"{name}.png") == "No such file or directory"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "million pixels" in reason(encode(quarters(), "PNG"))


QUIET = """
import sys, torch
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from cifar10.data.pictures.decode import read_picture
Image.MAX_IMAGE_PIXELS = 1500
pictures = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())] * 20
with ThreadPoolExecutor(8) as pool:
    together = list(pool.map(read_picture, pictures))
assert all(torch.equal(picture, read_picture(encoded)) for picture, encoded in zip(together, pictures))
"""


def test_many_threads_read_at_once_and_nothing_is_said(tmp_path):
    broken_exif = b"Exif\0\0II*\0\xff\xff\xff\xff"
    noisy = [
        *(make() for make in TRANSPARENT.values()),
        encode(quarters(), "PNG"),  # of more pixels than Pillow likes
        *(encode(quarters(), name, exif=broken_exif) for name in ("JPEG", "PNG", "WEBP")),
        encode(quarters(), "MPO", save_all=True, append_images=[quarters()]).replace(b"MPF\0", b"MPF\0\0", 1),
        *(encode(quarters(), name, **BEST.get(name, {})) for name in WRITTEN),
    ]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for picture in noisy:
            read_picture(picture)
    assert warned, "nothing to be silent about"
    for number, picture in enumerate(noisy):
        (tmp_path / f"{number}").write_bytes(picture)
    command = [sys.executable, "-W", "error", "-c", QUIET, tmp_path]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and not done.stdout, done.stderr
