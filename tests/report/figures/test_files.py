"""How figures leave: PNG, PDF and SVG, written atomically."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifar10.errors import UserError
from cifar10.report.figures import gallery_figure, learning_curves_figure, save_figure, svg


def small(width: float = 4, text: str = "text → ü") -> Figure:
    figure = Figure(figsize=(width, 2))
    figure.text(0.1, 0.5, text, parse_math=False)
    return figure


def test_figures_need_no_pyplot(tmp_path):
    code = (
        "import sys; from cifar10.report.figures import *;"
        "figure = confusion_matrix_figure([[1, 0], [0, 1]], ['a', 'b'], '');"
        "save_figure(figure, sys.argv[1]); svg(figure, 'a', 'a');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


@pytest.mark.parametrize(("width", "dots"), [(4, 200), (6.9, 200), (10, 150)])
def test_a_png_is_white_and_sharp_enough_for_print(tmp_path, width, dots):
    save_figure(small(width), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert (image.format, image.size) == ("PNG", (round(width * dots), 2 * dots))
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_a_pdf_holds_its_fonts_as_truetype_and_not_the_time(tmp_path):
    save_figure(small(), tmp_path / "figure.pdf")
    data = (tmp_path / "figure.pdf").read_bytes()
    assert data.startswith(b"%PDF") and b"/FontFile2" in data
    assert b"/Type3" not in data and b"CreationDate" not in data
    save_figure(small(), tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == data


@pytest.mark.parametrize("suffix", [".svg", ".PNG", ""])
def test_what_is_neither_png_nor_pdf_is_refused(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"\.png or \.pdf"):
        save_figure(small(), tmp_path / f"figure{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"figure{suffix}"
    path.write_bytes(b"old")

    def fail(self, file, **options):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(UserError, match=r"cannot be written .the disk is full.; the previous file is unchanged"):
        save_figure(Figure(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        save_figure(Figure(), tmp_path / "absent" / "figure.png")
    assert not (tmp_path / "absent").exists()


def test_an_svg_is_at_most_as_wide_on_screen_as_on_paper():
    root = ElementTree.fromstring(svg(small(3.3), "a", ""))
    assert root.get("viewBox") == "0 0 237.6 144"
    assert root.get("style").startswith("max-width: 317px; width: 100%; height: auto")


def test_two_figures_on_one_page_share_no_id():
    ids = [set(re.findall(r'\bid="([^"]*)"', svg(small(), name, ""))) for name in ("a", "b")]
    assert ids[0] and not ids[0] & ids[1]


@pytest.mark.parametrize("text", ["--> <b>", 'id="x" href="#y" url(#z)', "#1b1b1d #595959"])
def test_text_on_a_figure_never_becomes_markup(text):
    figure = small(text=text)
    assert ElementTree.fromstring(svg(figure, "a", text)).get("aria-label") == text


@pytest.mark.parametrize("name", ["", "1", "a b", 'a"', "ä", "a\n"])
def test_a_name_that_cannot_start_an_id_is_refused(name):
    with pytest.raises(ValueError, match="cannot start an id"):
        svg(small(), name, "")


def test_an_svg_keeps_the_pixels_of_small_images_square():
    image = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    text = svg(gallery_figure(image, [("a", "b", 0.5)] * 2, ""), "a", "")
    assert text.count("<image") == text.count("image-rendering:pixelated") == 2


def test_black_on_white_is_the_same_whatever_fill_the_page_has():
    assert (
        "fill: #000;"
        in svg(learning_curves_figure([{"name": "a", "runs": [[{"epoch": 0, "val/acc": 1.0}]]}]), "a", "").partition(
            ">"
        )[0]
    )
