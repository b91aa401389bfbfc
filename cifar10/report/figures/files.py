"""Figures leave here: as files, or as SVG inside a page."""

import html
import os
import re
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from cifar10.files import atomic_write
from cifar10.report.figures.style import DOUBLE, GREY, GROUND, INK, STYLE

FORMATS = (".png", ".pdf")
VECTOR_DPI = 300  # of the rasters inside a PDF or an SVG


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG or a PDF, by the suffix, atomically; its folder must exist.

    A PNG has 200 dots an inch, 150 if it is wider than two columns of a paper; a PDF embeds its fonts as TrueType.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path={path}: must end in {' or '.join(FORMATS)}")
    if path.suffix == ".png":
        options = {"format": "png", "dpi": 200 if figure.get_figwidth() <= DOUBLE else 150}
    else:
        options = {"format": "pdf", "dpi": VECTOR_DPI, "metadata": {"CreationDate": None}}
    with atomic_write(path) as file, rc_context({**STYLE, "pdf.fonttype": 42}):
        figure.savefig(file, **options)


def svg(figure: Figure, name: str, label: str) -> str:
    """A figure as an SVG element for a page: transparent, and at most as wide as on paper.

    Its text and axes take the page's text colour, its grey the page's `--muted`. Equal figures give equal SVGs.
    name: prefix of every id; a letter, then letters, digits, `-` and `_`, unique on the page. label: what a screen
    reader says.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
        raise ValueError(f"name={name!r}: cannot start an id")
    file = StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "cifar10", "svg.image_inline": True}
    with rc_context(STYLE | settings):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", dpi=VECTOR_DPI, transparent=True, metadata=nothing)
    _, text = re.sub(r"<!--.*?-->\s*", "", file.getvalue(), flags=re.DOTALL).split("<svg ", 1)
    _, text = text.split(">", 1)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # it would style the whole page
    # matplotlib's own ids hash the last bits of a layout, which are not the same twice
    hashed = {
        old: f"part{index}" for index, old in enumerate(dict.fromkeys(re.findall(r"\b[a-z][0-9a-f]{10}\b", text)))
    }
    text = re.sub(r"\b[a-z][0-9a-f]{10}\b", lambda found: hashed[found[0]], text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = text.replace(INK.lower(), "currentColor").replace(GREY.lower(), f"var(--muted, {GREY})")
    text = text.replace(GROUND.lower(), f"var(--ground, {GROUND})")
    width, height = figure.get_size_inches()
    # black text states no fill of its own, and would take the page's
    inherited = "fill: #000; stroke-linejoin: round; stroke-linecap: butt"
    style = f"max-width: {96 * width:.0f}px; width: 100%; height: auto; {inherited}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1" role="img"'
        f' aria-label="{html.escape(label)}" viewBox="0 0 {72 * width:g} {72 * height:g}" style="{style}">{text}'
    )
