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
class Table:
    """Cells are ready strings or links; every row has as many as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    kind: ClassVar[str] = "table"


@dataclass
class Figure:
    """draw: makes it at a width in inches. name: of its files, one word, unlike every other's of the document."""

    name: str
    caption: str
    draw: Callable[[float], Drawing]
    kind: ClassVar[str] = "figure"


class Images(Protocol):
    """Test images, in memory or in a file; only the few that are shown are read."""

    def __getitem__(self, places: np.ndarray) -> ArrayLike: ...


Block = Paragraph | Heading | Bullets | Table | Figure


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
    lead: list[Paragraph]
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
