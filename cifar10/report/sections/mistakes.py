"""The images themselves: the most confident mistakes, and what only one of two models gets right."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from cifar10.report import figures
from cifar10.report.calibration import confidence_of
from cifar10.report.document import Block, Figure, Findings, Heading, Images, Link, Paragraph, Table
from cifar10.report.groups import Group, Run
from cifar10.report.numbers import percent, plural, printable

MOST_IMAGES = 32  # of a gallery
MOST_PIXELS = 56  # a side: a page holds hundreds of pictures, each twice
MOST_ROWS = 20


def galleries(found: Findings) -> Iterator[Block]:
    """The most confident mistakes of each group's first run, and images that only one of two runs gets right."""
    if found.images is None:
        yield Paragraph("The test images were not available when this page was made, so none are shown.", "note")
    for index, (group, summary) in enumerate(zip(found.groups, found.summaries, strict=True)):
        run = group.runs[0]
        wrong = np.flatnonzero(~run.correct)
        if len(wrong) and found.images is not None:
            yield gallery(f"mistakes_{index}", f"{group.name}: most confident mistakes",
                          f"The most confident mistakes of {run_name(group)}: true class, predicted class, confidence"
                          f"{', file' * (run.files is not None)}. Look for labels that are themselves doubtful.",
                          run, wrong, found.images)  # fmt: skip
        if len(wrong) and run.files is not None:
            yield Heading(f"{run_name(group)}: files of the most confident mistakes")
            yield worst_mistakes(run, summary["runs"][0]["mistakes"])
    if found.images is None:
        return
    baseline = found.groups[0]
    for index, (other, comparison) in enumerate(zip(found.groups[1:], found.comparisons, strict=True), start=1):
        for key, right, wrong in (("only_other", other, baseline), ("only_baseline", baseline, other)):
            if places := comparison[key]:
                share = percent(len(places) / found.results["images"], 1)
                yield gallery(f"{key}_{index}", f"Only {right.name} is right",
                              f"{plural(len(places), 'image')} ({share}) that {run_name(right)} gets right and"
                              f" {run_name(wrong)} gets wrong. Shown are those on which the latter is most confident,"
                              " with its prediction.", wrong.runs[0], np.array(places), found.images)  # fmt: skip


def gallery(name: str, title: str, caption: str, run: Run, places: np.ndarray, images: Images) -> Figure:
    """Of the images at `places`, those on which the run is most confident."""
    confidence, predicted = confidence_of(run.logits), run.logits.argmax(axis=1)
    places = places[np.argsort(-confidence[places], kind="stable")][:MOST_IMAGES]
    classes = run.class_names
    texts = [(classes[run.labels[place]], classes[predicted[place]], float(confidence[place])) for place in places]
    files = None if run.files is None else [printable(Path(run.files[int(place)]).name) for place in places]
    return Figure(
        name, caption, partial(figures.gallery_figure, shrunk(np.asarray(images[places])), texts, title, files)
    )


def shrunk(images: np.ndarray) -> np.ndarray:
    """Images (N, 3, H, W) of at most `MOST_PIXELS` a side."""
    scale = min(1, MOST_PIXELS / max(images.shape[2:]))
    if scale == 1:
        return images
    high, wide = (max(1, round(scale * side)) for side in images.shape[2:])
    pictures = [
        Image.fromarray(image.transpose(1, 2, 0)).resize((wide, high), Image.Resampling.BOX) for image in images
    ]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def worst_mistakes(run: Run, mistakes: list[dict]) -> Table:
    """The files of the most confident mistakes, each a link where the data's root is known."""
    root = run.facts.get("data_root")
    rows = []
    for one in mistakes[:MOST_ROWS]:
        name = printable(one["file"])
        file = Link(name, Path(root, one["file"]).as_uri()) if root else name
        rows.append([file, one["true"], one["predicted"], percent(one["confidence"], 1)])
    return Table(["file", "true", "predicted", "confidence"], rows)


def run_name(group: Group) -> str:
    """The run that stands for a group where only one can be shown."""
    return f"{group.name} (seed {group.runs[0].seed})"
