"""What needs attention before training: one line for each finding, with what to do."""

from collections.abc import Sequence

import numpy as np

from cifar10.exploration.duplicates import Group
from cifar10.exploration.findings import Findings
from cifar10.report.numbers import count, percent, plural, printable

UNEQUAL = 5  # times as many pictures in the largest class as in the smallest
FEW = 10  # pictures of a class


def attention(findings: Findings) -> list[str]:
    """The lines, first what makes results wrong, then what makes them worse."""
    return [line for lines in (leaks, errors, classes, shapes) for line in lines(findings)]


def leaks(findings: Findings) -> list[str]:
    """Copies across splits, and copies with different labels."""
    found = []
    for kind, groups in (("exact", findings.exact), ("near", findings.near)):
        across, differ = sum(one.across_splits for one in groups), sum(one.labels_differ for one in groups)
        rest = len(groups) - sum(one.across_splits or one.labels_differ for one in groups)
        if across:
            found.append(f"{pictures(across)} {kind} copies in several splits: what is tested was trained on.")
        if differ:
            found.append(f"{pictures(differ)} {kind} copies with different labels: one of them is wrong.")
        if rest > 0.01 * len(findings.collection):
            found.append(f"{pictures(rest)} {kind} copies within a split: they count more than the others.")
    return found


def errors(findings: Findings) -> list[str]:
    """Label errors and unreadable files."""
    found = []
    if wrong := len(findings.label_errors):
        share = percent(wrong / len(findings.judged), 1)
        doubt = f"agrees with {percent(findings.predicted, 0)} of all labels: judge by eye"
        way = "look at the first" if findings.predicted > 0.5 else f"but what found them {doubt}"
        found.append(f"{plural(wrong, 'label')} may be wrong, {share} of those judged; {way}.")
    if broken := len(findings.collection.unreadable):
        found.append(f"{plural(broken, 'file')} cannot be read.")
    return found


def classes(findings: Findings) -> list[str]:
    """Classes that are small, unequal, or absent from a split."""
    found, names = [], [printable(name) for name in findings.collection.class_names]
    total = np.sum([*findings.counts.values()], axis=0)
    if few := [names[label] for label in np.flatnonzero(total < FEW)]:
        found.append(f"{count(len(few))} {'class' if len(few) == 1 else 'classes'} with fewer than {FEW} pictures:"
                     f" {listed(few)}.")  # fmt: skip
    for split, each in findings.counts.items():
        if absent := [names[label] for label in np.flatnonzero(each == 0)]:
            found.append(f"No {split} picture of {listed(absent)}.")
    low, high = int(total.argmin()), int(total.argmax())
    if total[high] >= UNEQUAL * max(1, total[low]):
        found.append(f"The largest class, {names[high]}, has {plural(int(total[high]), 'picture')}, the smallest,"
                     f" {names[low]}, {count(total[low])}:"
                     " accuracy alone says little; try data.sampler=balanced.")  # fmt: skip
    return found


def shapes(findings: Findings) -> list[str]:
    """Long pictures, of which a crop loses much."""
    share = share_of_long(findings.collection.sizes)
    lost = f"{percent(share, 0)} of the pictures are more than twice as long as wide: cropping them to a square loses"
    return [f"{lost} their ends; data.resize=pad keeps them."] if share > 0.05 else []


def share_of_long(sizes: np.ndarray) -> float:
    """The share of pictures that are more than twice as long as wide; sizes: (N, 2)."""
    return float((sizes.max(1) > 2 * sizes.min(1)).mean())


def pictures(number: int) -> str:
    return "1 picture has" if number == 1 else f"{count(number)} pictures have"


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def group_facts(findings: Findings, group: Group) -> dict:
    """A group of copies as explore.json has it."""
    found, members = findings.collection, list(group.members)
    return {
        "files": [found.files[place] for place in members],
        "splits": found.splits[members].tolist(),
        "labels": [found.class_names[label] for label in found.labels[members]],
    }
