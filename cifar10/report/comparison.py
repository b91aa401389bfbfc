"""Groups of runs compared: predictions in, plain dicts out, ready for JSON. The page lays out what comes from here."""

from collections.abc import Sequence

import numpy as np

from cifar10.report.groups import TRAIN_SIZE, Group, key_of, train_images
from cifar10.report.metrics import cross_entropy
from cifar10.report.scores import summarise
from cifar10.report.statistics import (
    mcnemar,
    only_one_right,
    paired_bootstrap,
    paired_bootstrap_by_class,
    seed_interval,
    spread,
    verdict,
    wilson_interval,
)


def compare(baseline: Group, other: Group) -> dict:
    """How `other` differs from `baseline`: the difference of the mean accuracies, and what it survives.

    `bootstrap` keeps the runs and resamples the test images; `seed_interval` keeps the test images and considers other
    seeds. `mcnemar` compares the runs of lowest seed; `largest_p` is that test's largest p over all pairs of runs.
    """
    a, b = baseline.runs[0].correct, other.runs[0].correct
    pairs = [mcnemar(one.correct, two.correct)["p_value"] for one in baseline.runs for two in other.runs]
    labels, classes = baseline.runs[0].labels, len(baseline.runs[0].class_names)
    bootstrap = paired_bootstrap(baseline.scores, other.scores)
    seeds = seed_interval(baseline.accs, other.accs)
    only_baseline, only_other = only_one_right(a, b)
    return {
        "baseline": baseline.name,
        "name": other.name,
        "difference": bootstrap["difference"],
        "bootstrap": bootstrap,
        "seed_interval": seeds,
        "verdict": verdict(bootstrap, seeds, baseline.name, other.name),
        "mcnemar": mcnemar(a, b),
        "seeds": [len(baseline.runs), len(other.runs)],
        "pairs": len(pairs),
        "largest_p": max(pairs),
        "by_class": paired_bootstrap_by_class(baseline.scores, other.scores, labels, classes),
        "only_baseline": only_baseline.tolist(),
        "only_other": only_other.tolist(),
    }


def evaluate(groups: Sequence[Group]) -> dict:
    """All groups summarised, and each but the first compared with the first."""
    return {
        "class_names": groups[0].runs[0].class_names,
        "images": len(groups[0].runs[0].labels),
        "groups": [summarise(group) for group in groups],
        "comparisons": [compare(groups[0], group) for group in groups[1:]],
    }


def relabel(groups: Sequence[Group], labels: np.ndarray) -> dict:
    """The same predictions judged by other labels (N,), -1 for an image to leave out: accuracies and comparisons."""
    original = groups[0].runs[0].labels
    kept = labels >= 0
    corrected = [Group(group.name, [run.relabelled(labels) for run in group.runs]) for group in groups]
    counts = {"images": int(kept.sum()), "left_out": int((~kept).sum())}
    counts["changed"] = int((labels != original)[kept].sum())
    rows = []
    for before, after in zip(groups, corrected, strict=True):
        total = len(after.runs[0].labels)
        low, high = wilson_interval(round(float(np.mean(after.accs)) * total), total)
        losses = [cross_entropy(run.logits, run.labels) for run in after.runs]
        rows.append({"name": before.name, "original": spread(before.accs), "acc": spread(after.accs),
                     "low": low, "high": high, "loss": spread(losses)})  # fmt: skip
    return counts | {"groups": rows, "comparisons": [compare(corrected[0], group) for group in corrected[1:]]}


def efficiency(groups: Sequence[Group]) -> list[dict]:
    """Accuracies by the number of training images, of recipes that differ in nothing else: "name", "sizes", "accs".

    Empty unless some recipe was trained on two numbers of images or more.
    """
    series: dict[str, dict] = {}
    for group in groups:
        found = series.setdefault(key_of(group.runs[0], but=TRAIN_SIZE), {"name": group.name, "points": []})
        found["points"].append((train_images(group), group.accs))
    if max(len(found["points"]) for found in series.values()) < 2:
        return []
    result = []
    for found in series.values():
        sizes, accs = zip(*sorted(found["points"]), strict=True)
        result.append({"name": found["name"], "sizes": list(sizes), "accs": list(accs)})
    return result
