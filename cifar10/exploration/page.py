"""The page about a data set, `explore.html`: findings laid out in the blocks of a report."""

from collections.abc import Iterator, Sequence, Sized
from pathlib import Path

import numpy as np

from cifar10.exploration import thumbnails
from cifar10.exploration.attention import attention, share_of_long
from cifar10.exploration.duplicates import Group
from cifar10.exploration.findings import Findings
from cifar10.report.document import Bars, Block, Bullets, Document, Figure, Map, Paragraph, Picture, Pictures, Section
from cifar10.report.figures import sizes_figure
from cifar10.report.figures.style import GROUP_COLOURS
from cifar10.report.numbers import count, percent, plural, printable
from cifar10.report.page import environment, inline, write_text

SHOWN_FILES, SHOWN_GROUPS, SHOWN_ERRORS = 20, 40, 120
SAMPLES = 600  # pictures in the grid of all classes together
FEW_CLASSES = 20  # each of which has its mean picture shown
MARKERS = "●■◆▲"


def write(folder: Path, findings: Findings) -> Path:
    """Write the page into the folder, and return its path."""
    document = compose(findings)
    text = environment().get_template("explore.html").render(document=document, drawings=inline(document))
    return write_text(folder / "explore.html", text)


# a section without blocks is left out
def compose(findings: Findings) -> Document:
    """Everything that the page says, in order."""
    found, noted = findings.collection, attention(findings)
    lead = f"{plural(len(found), 'picture')} in {count(len(found.class_names))} classes; "
    lead += "this needs attention before you train:" if noted else "nothing here needs attention before you train."
    sections = [
        ("counts", "Classes", counts(findings)),
        ("labels", "Likely label errors", label_errors(findings)),
        ("duplicates", "Duplicates", copies(findings)),
        ("unreadable", "Unreadable files", unreadable(findings)),
        ("map", "Map", similarity(findings)),
        ("samples", "Examples of each class", samples(findings)),
        ("sizes", "Sizes", sizes(findings)),
        ("pixels", "Pixels", pixels(findings)),
    ]
    closely = plural(len(findings.chosen), "picture")
    parts = ", ".join(f"{count(each.sum())} for {split}" for split, each in findings.counts.items())
    return Document(
        title=printable(found.name),
        subtitle=parts + ("" if len(findings.chosen) == len(found) else f"; {closely} looked at closely, a sample"),
        lead=[Paragraph(lead, "lead"), *([Bullets(noted)] if noted else [])]
        + [Paragraph(line, "warning") for line in findings.missing],
        sections=[Section(key, title, made) for key, title, blocks in sections if (made := list(blocks))],
    )


def counts(findings: Findings) -> Iterator[Block]:
    names = [printable(name) for name in findings.collection.class_names]
    yield Bars(names, list(findings.counts), [each.tolist() for each in findings.counts.values()])


def label_errors(findings: Findings) -> Iterator[Block]:
    if not findings.predicted:
        return
    if not findings.label_errors:
        yield Paragraph(f"None among the {plural(len(findings.judged), 'picture')} judged.")
        return
    found = findings.collection
    place = {int(chosen): index for index, chosen in enumerate(findings.chosen)}
    shown = findings.label_errors[:SHOWN_ERRORS]
    yield Paragraph(
        f"{plural(len(findings.label_errors), 'label')} of the {plural(len(findings.judged), 'picture')} judged: below"
        " each picture its class, the one that it looks like and how probable that is, and its file. Found by confident"
        f" learning with cleanlab, from a classifier that had not seen the picture and agrees with"
        f" {percent(findings.predicted, 0)} of the labels.{some(shown, findings.label_errors)}"
    )
    if "test" not in findings.label_splits and "test" in findings.counts:
        yield Paragraph("Test labels are not judged: a test set that was cleaned by a model flatters models like it."
                        " Correct them by eye, or ask with 'label_splits=[train,val,test]'.", "note")  # fmt: skip
    pictures = [
        picture(
            findings, one.place,
            [f"{class_name(findings, one.label)} → {class_name(findings, one.suggested)}",
             percent(one.confidence, 0), printable(found.files[one.place])],
            link=f"#map-{place[one.place]}",
        )
        for one in shown
    ]  # fmt: skip
    yield Pictures([("", pictures)], tall=True)


def copies(findings: Findings) -> Iterator[Block]:
    """Exact and near duplicates, a row each."""
    for kind, groups, way in (
        ("Exact", findings.exact, "Files of equal content."),
        ("Near", findings.near, "The same picture compressed, brightened, shifted a little or mirrored"
         + (f"; {plural(findings.compared, 'picture')} were compared." if findings.compared < len(findings.collection)
            else ".")),
    ):  # fmt: skip
        if groups:
            shown = groups[:SHOWN_GROUPS]
            yield Paragraph(f"{kind} duplicates: {plural(len(groups), 'group')}. {way}{some(shown, groups)}")
            yield Pictures([(title_of(group), members(findings, group)) for group in shown], tall=True)


def title_of(group: Group) -> str:
    traits = [("different labels", group.labels_differ), ("in several splits", group.across_splits)]
    return ", ".join(trait for trait, holds in traits if holds) or "in one split, with one label"


def members(findings: Findings, group: Group) -> list[Picture]:
    found = findings.collection
    return [
        picture(findings, place, [f"{found.splits[place]}: {class_name(findings, found.labels[place])}",
                                  printable(found.files[place])])
        for place in group.members[:8]
    ]  # fmt: skip


def unreadable(findings: Findings) -> Iterator[Block]:
    files = findings.collection.unreadable
    if files:
        shown = list(files.items())[:SHOWN_FILES]
        yield Paragraph(f"{plural(len(files), 'file')} left out.{some(shown, files)}")
        yield Bullets([f"{printable(file)}: {printable(reason)}" for file, reason in shown])


def similarity(findings: Findings) -> Iterator[Block]:
    """The map of features."""
    if findings.map is None:
        return
    found, chosen = findings.collection, findings.chosen
    images = (image for few in np.array_split(chosen, -(-len(chosen) // 64)) for image in found.read(few))
    side = found.read(chosen[:1]).shape[-1]
    sheet, columns, _ = thumbnails.sheet(images, len(chosen), side)
    suggested = {one.place: one.suggested for one in findings.label_errors}
    data = {
        "x": (1000 * findings.map[:, 0]).round().astype(int).tolist(),
        "y": (1000 * findings.map[:, 1]).round().astype(int).tolist(),
        "labels": found.labels[chosen].tolist(),
        "splits": found.splits[chosen].tolist(),
        "files": [printable(found.files[int(place)]) for place in chosen],
        "suggested": [suggested.get(int(place), -1) for place in chosen],
        "classes": [printable(name) for name in found.class_names],
        **{"sheet": sheet, "columns": columns, "colours": GROUP_COLOURS, "markers": MARKERS},
    }
    yield Paragraph(
        "Pictures that look alike to the backbone are neighbours (t-SNE of its features). An island of one class is"
        " easy to learn; a dot among another class's is a hard picture, or a wrong label."
    )
    yield Map(data, f"Map of {plural(len(chosen), 'picture')}, coloured by class")


def samples(findings: Findings) -> Iterator[Block]:
    found, rows = findings.collection, []
    each = int(np.clip(SAMPLES // len(found.class_names), 2, 10))
    for label, name in enumerate(found.class_names):
        places = findings.chosen[found.labels[findings.chosen] == label]
        places = places[np.linspace(0, len(places) - 1, min(each, len(places)), dtype=int)]
        rows.append((printable(name), [picture(findings, place) for place in places]))
    yield Pictures(rows, tall=len(rows) > FEW_CLASSES)


def sizes(findings: Findings) -> Iterator[Block]:
    pairs = np.unique(found := findings.collection.sizes, axis=0)
    if len(pairs) == 1:
        yield Paragraph(f"All pictures have {pairs[0][0]:,} x {pairs[0][1]:,} pixels.")
        return
    short = np.sort(found.min(1))
    yield Paragraph(
        f"Shorter sides from {short[0]:,} to {short[-1]:,} pixels, half of them above {short[len(short) // 2]:,};"
        f" {percent(share_of_long(found), 0)} of the pictures are more than twice as long as wide."
    )
    caption = "Width and height, larger dots for more pictures; how wide for their height, beyond 4:1 at the ends."
    yield Figure("sizes", caption, lambda width: sizes_figure(found, width))


def pixels(findings: Findings) -> Iterator[Block]:
    means, deviations = (", ".join(f"{value:.4f}" for value in each) for each in (findings.mean, findings.std))
    yield Paragraph(
        f"Red, green and blue in [0, 1], without test pictures: mean [{means}], standard deviation [{deviations}], to"
        " normalise with."
    )
    names = ["all", *(findings.collection.class_names if len(findings.means) <= FEW_CLASSES + 1 else [])]
    pictures = [
        Picture(thumbnails.thumbnail(image), f"mean of {printable(name)}", [printable(name)])
        for image, name in zip(findings.means, names, strict=False)
    ]
    yield Paragraph("The mean picture: what it shows is where things usually are, or a mark that they share.")
    yield Pictures([("", pictures)])


def picture(findings: Findings, place: int, lines: Sequence[str] = (), link: str = "") -> Picture:
    image = findings.collection.read(np.array([place]))[0]
    return Picture(thumbnails.thumbnail(image), printable(findings.collection.files[place]), lines, link)


def class_name(findings: Findings, label: int) -> str:
    return printable(findings.collection.class_names[label])


def some(shown: Sized, of: Sized) -> str:
    """Where the rest is, if not all is shown."""
    return "" if len(shown) == len(of) else f" The first {len(shown)} are shown; all are in explore.json."
