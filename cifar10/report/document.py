"""What a report says, in blocks that every template merely walks: build it once, write it as HTML and as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from matplotlib.figure import Figure as Drawing
from numpy.typing import ArrayLike

from cifar10.report.groups import Group


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere."""

    text: str
    url: str


@dataclass
class Paragraph:
    """style: "" for text, "lead" for what a report says first, "note" for what explains a table, or "warning"."""

    text: str
    style: str = ""
    kind: ClassVar[str] = "paragraph"


@dataclass
class Heading:
    text: str
    kind: ClassVar[str] = "heading"


@dataclass
class Bullets:
    items: Sequence[str]
    kind: ClassVar[str] = "bullets"


@dataclass
class Code:
    """A command to type; title: what it is for."""

    title: str
    text: str
    kind: ClassVar[str] = "code"


@dataclass
class Table:
    """Cells are ready strings or links; every row has as many as the header. words: of sentences, not of numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    words: bool = False
    kind: ClassVar[str] = "table"


@dataclass
class Picture:
    """uri: data URI. alt: what a screen reader says. lines: below it. link: where a click leads, such as "#map-12"."""

    uri: str
    alt: str
    lines: Sequence[str] = ()
    link: str = ""


@dataclass
class Pictures:
    """Pictures in rows, each with a title, that break where the page ends; the rows scroll if `tall`."""

    rows: Sequence[tuple[str, Sequence[Picture]]]
    tall: bool = False
    kind: ClassVar[str] = "pictures"


@dataclass
class Bars:
    """A table with a stacked bar in each row; values: whole numbers, one list a part, one number a row."""

    names: Sequence[str]
    parts: Sequence[str]
    values: Sequence[Sequence[int]]
    kind: ClassVar[str] = "bars"

    def rows(self) -> Iterator[tuple[str, list[float], list[str]]]:
        """Of each row the name, the widths of its parts in per cent of the longest bar, and the numbers as text."""
        numbers = np.array(self.values).T  # (rows, parts)
        for name, row in zip(self.names, numbers, strict=True):
            yield name, (100 * row / max(1, numbers.sum(1).max())).round(2).tolist(), [f"{value:,}" for value in row]


@dataclass
class Map:
    """Points that show a picture when pointed at; data: what `templates/map.html` reads. label: of its canvas."""

    data: dict
    label: str
    kind: ClassVar[str] = "map"


@dataclass
class Figure:
    """draw: makes it at a width in inches. name: of its files, one word, unlike every other's of the document."""

    name: str
    caption: str
    draw: Callable[..., Drawing]
    kind: ClassVar[str] = "figure"


class Images(Protocol):
    """Test images, in memory or in a file; only the few that are shown are read."""

    def __getitem__(self, places: np.ndarray) -> ArrayLike: ...


Block = Paragraph | Heading | Bullets | Code | Table | Figure | Pictures | Bars | Map


@dataclass
class Section:
    """key: the anchor of its heading."""

    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    title: str
    subtitle: str
    lead: list[Block]
    sections: list[Section]

    def figures(self) -> Iterator[Figure]:
        return (block for section in self.sections for block in section.blocks if isinstance(block, Figure))


@dataclass
class Findings:
    """What a report is built from.

    results: of `comparison.evaluate`, with "corrected", "robustness", "cifar10c" and "efficiency" where there are such.
    images: of the test split, or None: anything that gives uint8 (n, 3, H, W) for n integers, one for each, as an
    array does. left_out: why runs are missing, a line each.
    """

    groups: Sequence[Group]
    results: dict
    images: Images | None = None
    left_out: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return [group.name for group in self.groups]

    @property
    def summaries(self) -> list[dict]:
        return self.results["groups"]

    @property
    def comparisons(self) -> list[dict]:
        return self.results["comparisons"]

    @property
    def class_names(self) -> list[str]:
        return self.results["class_names"]

    @property
    def support(self) -> list[int]:
        """Test images of each class."""
        return [row["support"] for row in self.summaries[0]["runs"][0]["per_class"]]

    @property
    def several_seeds(self) -> bool:
        return any(len(group.runs) > 1 for group in self.groups)
