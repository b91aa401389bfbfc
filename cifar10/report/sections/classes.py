"""Class by class: how many images there are, what is recognised, and what is confused with what."""

from collections.abc import Iterator, Sequence, Sized
from functools import partial
from itertools import zip_longest

import numpy as np

from cifar10.report import figures
from cifar10.report.document import Block, Figure, Findings, Heading, Paragraph, Table
from cifar10.report.numbers import count, percent, plural

MOST_CONFUSIONS = 8
MANY = 30  # classes: of more, only the most telling ones are shown
WORST, BEST, CHANGED = 15, 10, 20


def class_by_class(found: Findings) -> Iterator[Block]:
    """Each class in every group, and its change with an interval."""
    names, groups = found.class_names, found.summaries
    yield Paragraph(sizes(found))
    if len(groups) > 1:
        recalls = np.array([group["recall"] for group in groups])
        kept = most_changed(recalls[-1] - recalls[0])
        values = [
            {"name": group["name"], "values": recall[kept]} for group, recall in zip(groups, recalls, strict=True)
        ]
        yield Figure("per_class", "Recall: the share of a class's images that is recognised. The class that gains most"
                     " is on top; the longer a line, the more the models differ on that class." + of_all(kept, names),
                     partial(figures.per_class_figure, [names[label] for label in kept], values))  # fmt: skip
    for index, comparison in enumerate(found.comparisons, start=1):
        change = np.array([[row[key] for row in comparison["by_class"]] for key in ("difference", "low", "high")])
        kept = most_changed(change[0])
        draw = partial(figures.per_class_change_figure, [names[label] for label in kept], *change[:, kept],
                       comparison["baseline"], comparison["name"])  # fmt: skip
        yield Figure(f"per_class_change_{index}", f"Change in each class's recall, {comparison['name']} compared with"
                     f" {comparison['baseline']}, with its 95 % bootstrap interval. An interval that holds 0 shows no"
                     " change. Each interval stands for its class alone: one in twenty misses by chance."
                     + of_all(kept, names), draw)  # fmt: skip
    yield from table(found)


def sizes(found: Findings) -> str:
    """How many test images the classes have."""
    names, support = found.class_names, found.support
    least, most = min(images for images in support if images), max(support)
    if min(support) == most:
        return f"Each of the {count(len(names))} classes has {plural(most, 'test image')}."
    text = (f"Of {count(len(names))} classes, {names[support.index(most)]} has the most test images, {count(most)}, and"
            f" {names[support.index(least)]} the fewest, {count(least)}.")  # fmt: skip
    if empty := [name for name, images in zip(names, support, strict=True) if not images]:
        text += (f" Without test images: {', '.join(empty[:MANY])}{' and others' * (len(empty) > MANY)};"
                 " no mean counts them.")  # fmt: skip
    return text


def most_changed(change: np.ndarray) -> np.ndarray:
    """All classes, or of many those that changed most, in their order."""
    if len(change) <= MANY:
        return np.arange(len(change))
    return np.sort(np.argsort(-np.abs(change), kind="stable")[:CHANGED])  # NaN last


def of_all(kept: Sized, names: Sequence[str]) -> str:
    return f" Shown are the {len(kept)} of {count(len(names))} classes that changed most." * (len(kept) < len(names))


def table(found: Findings) -> Iterator[Block]:
    names, groups = found.class_names, found.summaries
    keys, titles = ("precision", "recall", "f1"), ("precision", "recall", "F1")
    given = found.groups[0].runs[0].facts.get("class_counts", {})
    columns = {"test images": found.support}
    columns |= {
        title: given[split] for split, title in (("train", "training"), ("val", "validation")) if split in given
    }
    rows = [
        [name, *(count(images[label]) for images in columns.values()),
         *(percent(group[key][label], 1) for group in groups for key in keys)]
        for label, name in enumerate(names)
    ]  # fmt: skip
    several = len(groups) > 1
    note = "Means over the seeds of each model." * found.several_seeds
    if len(names) > MANY:
        recall = np.mean([group["recall"] for group in groups], axis=0)
        order = np.argsort(recall, kind="stable")[: np.isfinite(recall).sum()]
        cut = ["…", *[""] * (len(rows[0]) - 1)]
        rows = [*(rows[label] for label in order[:WORST]), cut, *(rows[label] for label in order[WORST:][-BEST:])]
        note = (f"The {WORST} classes of lowest recall and the {BEST} of highest; all {count(len(names))} are in"
                f" metrics.json. {note}").rstrip()  # fmt: skip
    means = [percent(float(np.nanmean(group[key])), 1) for group in groups for key in keys]
    header = [title + f", {group['name']}" * several for group in groups for title in titles]
    totals = ["mean, total of images", *(count(sum(images)) for images in columns.values()), *means]
    yield Table(["class", *columns, *header], [*rows, totals])
    if note:
        yield Paragraph(note, "note")


def confusion(found: Findings) -> Iterator[Block]:
    many = len(found.class_names) > MANY
    figure = figures.clustered_confusion_figure if many else figures.confusion_matrix_figure
    reading = (" Similar classes stand side by side (average linkage of how often two are taken for each other);"
               " squares on the diagonal are groups that are large enough to be named. The colour is the share of the"
               " row." if many else
               " A cell holds the number of images, where there is room for it, and their percentage of the row, which"
               " is also its colour.")  # fmt: skip
    for index, (group, summary) in enumerate(zip(found.groups, found.summaries, strict=True)):
        summed = f", sum of {plural(len(group.runs), 'seed')}" if len(group.runs) > 1 else ""
        title = f"{group.name}{summed}"
        yield Figure(f"confusion_{index}", f"{title}: rows are true classes, columns predicted ones.{reading}",
                     partial(figure, summary["confusion_matrix"], found.class_names, title))  # fmt: skip
    for index, comparison in enumerate(found.comparisons if not many else [], start=1):
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
