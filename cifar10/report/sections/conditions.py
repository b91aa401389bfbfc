"""The same models under other conditions: corrected labels, corrupted images, fewer training images."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from cifar10.report import figures
from cifar10.report.document import Block, Figure, Findings, Paragraph, Table
from cifar10.report.numbers import UNKNOWN, count, interval, percent, plural, points, spread_of
from cifar10.report.statistics import spread


def corrected(found: Findings) -> Iterator[Block]:
    if (result := found.results.get("corrected")) is None:
        return
    yield Paragraph(f"The same predictions judged by the labels of {result['file']}:"
                    f" {plural(result['changed'], 'label')} differ from the original ones,"
                    f" {plural(result['left_out'], 'image')} left out, {count(result['images'])} remain.")  # fmt: skip
    header = ["", "original labels", "corrected labels", "95 % interval", "change, points", "loss, corrected"]
    rows = [
        [row["name"], spread_of(row["original"], percent), spread_of(row["acc"], percent),
         interval(row["low"], row["high"]), points(row["acc"]["mean"] - row["original"]["mean"]),
         spread_of(row["loss"])]
        for row in result["groups"]
    ]  # fmt: skip
    yield Table(header, rows)
    for comparison in result["comparisons"]:
        yield Paragraph(comparison["verdict"])


def corruptions(key: str, text: str, found: Findings) -> Iterator[Block]:
    """key: of the results, "robustness" or "cifar10c". text: where the images come from."""
    if (result := found.results.get(key)) is None:
        return
    groups, names = result["groups"], [name.replace("_", " ") for name in result["corruptions"]]
    yield Paragraph(f"{text} {count(result['images'])} images for each corruption and severity.")
    if key == "robustness":
        yield Figure("robustness", "Accuracy against the severity of each corruption; the dashed line is clean"
                     " images. Look for where a line that starts higher falls below the other.",
                     partial(figures.corruption_figure, groups, names))  # fmt: skip
    rows = [["none", *(percent(group["clean"], 1) for group in groups)]]
    for index, name in enumerate(names):
        rows.append([name, *(percent(float(np.mean(group["acc"][index])), 1) for group in groups)])
    rows.append(["mean of all", *(percent(group["mean"], 1) for group in groups)])
    yield Table(["corruption, mean over severities", *(group["name"] for group in groups)], rows)


computed = partial(
    corruptions,
    "robustness",
    "Computed from the test images with the parameters of CIFAR-10-C (Hendrycks & Dietterich 2019), without frost,"
    " which needs photographs of its own.",
)
published = partial(corruptions, "cifar10c", "The published files of Hendrycks & Dietterich 2019.")


def training_sizes(found: Findings) -> Iterator[Block]:
    if (groups := found.results.get("efficiency")) is None:
        return
    yield Figure("data_efficiency", "Test accuracy against the number of training images (log axis): small dots are"
                 " seeds, the line joins their means, bars are one standard deviation. Read across: how many images"
                 " does one model need to reach what the other has with few?",
                 partial(figures.data_efficiency_figure, groups))  # fmt: skip
    rows = []
    for size in sorted({size for group in groups for size in group["sizes"]}):
        row = [count(size)]
        for group in groups:
            accs = dict(zip(group["sizes"], group["accs"], strict=True)).get(size)
            row.append(UNKNOWN if accs is None else f"{spread_of(spread(accs), percent)} ({len(accs)})")
        rows.append(row)
    yield Table(["training images", *(f"{group['name']} (seeds)" for group in groups)], rows)
