"""Class by class: what is recognised, what is confused with what, and the images themselves."""

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest

import numpy as np

from cifar10.report import figures
from cifar10.report.calibration import confidence_of
from cifar10.report.document import Block, Figure, Findings, Heading, Paragraph, Table
from cifar10.report.groups import Group, Run
from cifar10.report.numbers import count, percent, plural

MOST_IMAGES = 32  # of a gallery
MOST_CONFUSIONS = 8


def classes(found: Findings) -> Iterator[Block]:
    """Each class in every group, and its change with an interval."""
    names, groups = found.class_names, found.summaries
    if len(groups) > 1:
        values = [{"name": group["name"], "values": group["recall"]} for group in groups]
        yield Figure("per_class", "Recall: the share of a class's images that is recognised. The class that gains most"
                     " is on top; the longer a line, the more the models differ on that class.",
                     partial(figures.per_class_figure, names, values))  # fmt: skip
    for index, comparison in enumerate(found.comparisons, start=1):
        change = [[row[key] for row in comparison["by_class"]] for key in ("difference", "low", "high")]
        draw = partial(figures.per_class_change_figure, names, *change, comparison["baseline"], comparison["name"])
        yield Figure(f"per_class_change_{index}", f"Change in each class's recall, {comparison['name']} compared with"
                     f" {comparison['baseline']}, with its 95 % bootstrap interval. An interval that holds 0 shows no"
                     " change. Each interval stands for its class alone: one in twenty misses by chance.",
                     draw)  # fmt: skip
    keys = ("precision", "recall", "f1")
    support = [row["support"] for row in groups[0]["runs"][0]["per_class"]]
    rows = [
        [name, count(support[index]), *(percent(group[key][index], 1) for group in groups for key in keys)]
        for index, name in enumerate(names)
    ]
    means = [percent(float(np.mean(group[key])), 1) for group in groups for key in keys]
    header = [metric + f", {group['name']}" * (len(groups) > 1)
              for group in groups for metric in ("precision", "recall", "F1")]  # fmt: skip
    yield Table(["class", "images", *header], [*rows, ["mean", count(sum(support)), *means]])
    if found.several_seeds:
        yield Paragraph("Means over the seeds of each model.", "note")


def confusion(found: Findings) -> Iterator[Block]:
    for index, (group, summary) in enumerate(zip(found.groups, found.summaries, strict=True)):
        summed = f", sum of {plural(len(group.runs), 'seed')}" if len(group.runs) > 1 else ""
        draw = partial(figures.confusion_matrix_figure, summary["confusion_matrix"], found.class_names)
        yield Figure(f"confusion_{index}", f"{group.name}{summed}: rows are true classes, columns predicted ones. A"
                     " cell holds the number of images, where there is room for it, and their percentage of the row,"
                     " which is also its colour.", partial(draw, f"{group.name}{summed}"))  # fmt: skip
    for index, comparison in enumerate(found.comparisons, start=1):
        matrices = [found.summaries[place]["confusion_matrix"] for place in (0, index)]
        title = f"{comparison['name']} minus {comparison['baseline']}"
        draw = partial(figures.confusion_difference_figure, *matrices, found.class_names, title)
        yield Figure(f"confusion_difference_{index}", f"{title}, in percentage points of the true class. Blue is better"
                     " (more on the diagonal, less elsewhere), orange is worse.", draw)  # fmt: skip
    yield Heading(f"Most frequent confusions{', summed over seeds' * found.several_seeds}")
    columns = [
        [f"{pair['true']} as {pair['predicted']}: {count(pair['count'])} ({percent(pair['share'], 1)})"
         for pair in summary["most_confused"][:MOST_CONFUSIONS]]
        for summary in found.summaries
    ]  # fmt: skip
    yield Table(found.names, list(zip_longest(*columns, fillvalue="")))


def galleries(found: Findings) -> Iterator[Block]:
    """The most confident mistakes of each group's first run, and images that only one of two runs gets right."""
    if found.images is None:
        yield Paragraph("The test images were not available when this page was made, so none are shown.", "note")
        return
    for index, group in enumerate(found.groups):
        if len(wrong := np.flatnonzero(~group.runs[0].correct)):
            yield gallery(f"mistakes_{index}", f"{group.name}: most confident mistakes",
                          f"The most confident mistakes of {run_name(group)}: true class, predicted class, confidence."
                          " Look for labels that are themselves doubtful.",
                          group.runs[0], wrong, found.images)  # fmt: skip
    baseline = found.groups[0]
    for index, (other, comparison) in enumerate(zip(found.groups[1:], found.comparisons, strict=True), start=1):
        for key, right, wrong in (("only_other", other, baseline), ("only_baseline", baseline, other)):
            if places := comparison[key]:
                share = percent(len(places) / found.results["images"], 1)
                yield gallery(f"{key}_{index}", f"Only {right.name} is right",
                              f"{plural(len(places), 'image')} ({share}) that {run_name(right)} gets right and"
                              f" {run_name(wrong)} gets wrong. Shown are those on which the latter is most confident,"
                              " with its prediction.", wrong.runs[0], np.array(places), found.images)  # fmt: skip


def gallery(name: str, title: str, caption: str, run: Run, places: np.ndarray, images: np.ndarray) -> Figure:
    """Of the images at `places`, those on which the run is most confident."""
    confidence, predicted = confidence_of(run.logits), run.logits.argmax(axis=1)
    places = places[np.argsort(-confidence[places], kind="stable")][:MOST_IMAGES]
    classes = run.class_names
    texts = [(classes[run.labels[place]], classes[predicted[place]], float(confidence[place])) for place in places]
    return Figure(name, caption, partial(figures.gallery_figure, images[places], texts, title))


def run_name(group: Group) -> str:
    """The run that stands for a group where only one can be shown."""
    return f"{group.name} (seed {group.runs[0].seed})"
