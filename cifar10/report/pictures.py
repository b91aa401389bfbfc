"""The figures of a report, each with what to look for, from groups of runs and what `comparison` computed of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

from cifar10.report import figures
from cifar10.report.calibration import coverage_curve, reliability_bins
from cifar10.report.groups import Group, Run
from cifar10.report.tables import percent

PICTURES_A_GALLERY = 32


@dataclass
class Picture:
    """A figure with its place: `name` is its file's and starts with its section, `caption` says what to look for."""

    name: str
    section: str
    caption: str
    figure: Figure


def pictures(groups: Sequence[Group], results: dict, images: np.ndarray | None) -> Iterator[Picture]:
    """All figures that the groups have something for. images: of the test split, uint8 (N, 3, H, W), or None."""
    yield from overview(groups, results)
    yield from class_pictures(results)
    for index, group in enumerate(groups):
        yield from confusions(index, group, results["groups"][index], results["class_names"])
    for index, comparison in enumerate(results["comparisons"], start=1):
        matrices = [results["groups"][place]["confusion_matrix"] for place in (0, index)]
        title = f"{comparison['baseline']} to {comparison['name']}"
        figure = figures.confusion_difference_figure(*matrices, results["class_names"], title)
        yield Picture(f"confusion_difference_{index}", "confusion", f"What changes from {title}, in percentage points"
                      " of the true class: blue is better (on the diagonal more, elsewhere less), orange is worse.",
                      figure)  # fmt: skip
    for index, group in enumerate(groups):
        yield reliability(index, group, results["groups"][index])
    yield coverage(groups)
    yield from curves(groups)
    if "robustness" in results:
        robust = results["robustness"]
        figure = figures.corruption_figure(robust["groups"], robust["corruptions"])
        yield Picture("robustness", "robustness", f"Accuracy on {robust['images']:,} test images, corrupted in five"
                      " severities; the dashed line is the accuracy without corruption. Look for where a line that"
                      " starts higher falls below the other.", figure)  # fmt: skip
    if "efficiency" in results:
        figure = figures.data_efficiency_figure(results["efficiency"])
        yield Picture("data_efficiency", "efficiency", "Test accuracy against the number of training images (log axis):"
                      " dots are seeds, the line goes through their means. Read across: how many images of its own does"
                      " one model need to reach what the other has with few?", figure)  # fmt: skip
    if images is not None:
        yield from galleries(groups, results, images)


def overview(groups: Sequence[Group], results: dict) -> Iterator[Picture]:
    """The comparison at a glance, accuracies with their intervals, and what they cost."""
    summaries = results["groups"]
    if len(groups) > 1:
        glance = [
            {"name": g.name, "accs": g.accs, "recall": s["recall"], "seconds": s["train_seconds"]}
            for g, s in zip(groups, summaries, strict=True)
        ]
        yield Picture("overview", "overview", "At a glance: accuracy (a dot is a seed), the share of each class that is"
                      " recognised, and accuracy against training time.",
                      figures.overview_figure(glance, results["class_names"]))  # fmt: skip
        rows = [
            {"name": g.name, "accs": g.accs, "low": s["low"], "high": s["high"]}
            for g, s in zip(groups, summaries, strict=True)
        ]
        yield Picture("accuracy", "overview", "Test accuracy: the bar is the 95 % Wilson interval of the mean for other"
                      " test images, the small dots are seeds. Where they lie apart, the models differ; where"
                      " they overlap, the paired tests below decide.", figures.accuracy_figure(rows))  # fmt: skip
        costs = [
            {"name": s["name"], "acc": s["acc"]["mean"], "std": s["acc"]["std"], "seconds": s["train_seconds"],
             "flops": s["train_flops"]}
            for s in summaries
        ]  # fmt: skip
        if (figure := figures.cost_figure(costs)) is not None:
            yield Picture("cost", "overview", "What the accuracy cost: up is better, left is cheaper. Times hold for"
                          " the hardware in the table; operations hold everywhere.", figure)  # fmt: skip


def class_pictures(results: dict) -> Iterator[Picture]:
    """Each class in every group, and its change with an interval."""
    names, groups = results["class_names"], results["groups"]
    if len(groups) > 1:
        values = [{"name": group["name"], "values": group["recall"]} for group in groups]
        yield Picture("per_class", "classes", "The share of each class's images that is recognised (recall), the class"
                      " that gains most on top. Long lines are where the model matters most.",
                      figures.per_class_figure(names, values))  # fmt: skip
    for index, comparison in enumerate(results["comparisons"], start=1):
        change = [[row[key] for row in comparison["by_class"]] for key in ("difference", "low", "high")]
        figure = figures.per_class_change_figure(names, *change, comparison["baseline"], comparison["name"])
        yield Picture(f"per_class_change_{index}", "classes", "The change of each class's recall in percentage points"
                      " with its 95 % bootstrap interval. An interval that touches zero does not show a change;"
                      " each holds for its class alone, and of 20 such intervals one misses by chance.",
                      figure)  # fmt: skip


def confusions(index: int, group: Group, summary: dict, class_names: Sequence[str]) -> Iterator[Picture]:
    """A group's confusion matrix, its runs added up, in counts and by row."""
    matrix, several = summary["confusion_matrix"], f", {len(group.runs)} runs added up" * (len(group.runs) > 1)
    yield Picture(f"confusion_{index}", "confusion", f"{group.name}{several}: rows are the true classes, columns the"
                  " predicted ones. The diagonal is right; the darkest cell off it is the commonest mistake.",
                  figures.confusion_matrix_figure(matrix, class_names, f"{group.name}: images{several}"))  # fmt: skip
    figure = figures.confusion_matrix_figure(matrix, class_names, f"{group.name}: % of the true class", normalise=True)
    yield Picture(f"confusion_rows_{index}", "confusion", f"{group.name}{several}: the same in per cent of each true"
                  " class; a row adds up to 100.", figure)  # fmt: skip


def reliability(index: int, group: Group, summary: dict) -> Picture:
    """The reliability diagram of a group's first run, before and after temperature scaling."""
    run, scored = group.runs[0], summary["runs"][0]
    temperature = scored["temperature"]
    before, after = (
        reliability_bins(run.logits, run.labels, temperature=t) | {"ece": scored[stage]["ece"], "temperature": t}
        for stage, t in (("calibration", 1.0), ("calibrated", temperature))
    )
    return Picture(f"reliability_{index}", "calibration", f"{group.name}{seed_of(group)}: how often the model is right"
                   " among predictions of the same confidence. Below the diagonal it is surer than it should be,"
                   " above it less sure. The lower panels count the images (log axis): a gap of a few means little."
                   f" Right: after dividing the logits by {temperature:.2f}, fitted on the validation images.",
                   figures.reliability_figure(before, after, f"{group.name}: calibration"))  # fmt: skip


def coverage(groups: Sequence[Group]) -> Picture:
    """Accuracy against coverage of each group's first run."""
    found = []
    for group in groups:
        share, acc = coverage_curve(group.runs[0].logits, group.runs[0].labels)
        found.append({"name": group.name, "coverage": share, "acc": acc})
    return Picture("coverage", "calibration", "If the model may decline to answer where it is least sure: accuracy on"
                   " the share of images that it answers. A curve that rises steeply to the left knows its mistakes.",
                   figures.coverage_figure(found))  # fmt: skip


def curves(groups: Sequence[Group]) -> Iterator[Picture]:
    """Learning curves: of one run in detail, of several on the same axes."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        run = groups[0].runs[0]
        if run.epochs:
            yield Picture("learning_curves", "curves", "Loss and accuracy over the epochs, both phases on one axis; the"
                          " ring is the epoch that was kept, the lowest validation loss. Training may look worse than"
                          " validation: it sees augmented images, with dropout and label smoothing.",
                          figures.learning_curves_figure(run.epochs, run.switch_epoch, groups[0].name))  # fmt: skip
        return
    found = [
        {"name": group.name, "runs": [run.epochs for run in group.runs if run.epochs], "index": index,
         "switch_epoch": group.runs[0].switch_epoch}
        for index, group in enumerate(groups)
    ]  # fmt: skip
    found = [group for group in found if group["runs"]]
    if found:
        yield Picture("learning_curves", "curves", "Validation over the epochs (dashed: training), the mean of the"
                      " seeds and, shaded, from the lowest to the highest. Phases share the axis; an epoch of phase 1"
                      " is far cheaper than one of phase 2. Training loss may lie above validation loss: it has"
                      " augmented images, dropout and label smoothing.",
                      figures.learning_curves_comparison_figure(found))  # fmt: skip


def galleries(groups: Sequence[Group], results: dict, images: np.ndarray) -> Iterator[Picture]:
    """The worst mistakes of each group's first run, and images that only one of two models gets right."""
    for index, group in enumerate(groups):
        run = group.runs[0]
        wrong = np.flatnonzero(~run.correct)
        if not len(wrong):
            continue
        worst = wrong[np.argsort(-confidence(run)[wrong], kind="stable")][:PICTURES_A_GALLERY]
        yield Picture(f"mistakes_{index}", "mistakes", f"{group.name}{seed_of(group)}: the mistakes it was surest of,"
                      " true class, then predicted. Look for labels that are themselves in doubt.",
                      gallery(run, images, worst, f"{group.name}: the surest mistakes"))  # fmt: skip
    for index, comparison in enumerate(results["comparisons"], start=1):
        for key, winner, loser in (
            ("only_other", groups[index], groups[0]),
            ("only_baseline", groups[0], groups[index]),
        ):
            places = np.array(comparison[key], dtype=int)
            if not len(places):
                continue
            sure = places[np.argsort(-confidence(loser.runs[0])[places], kind="stable")][:PICTURES_A_GALLERY]
            share = percent(len(places) / results["images"], 1)
            yield Picture(f"{key}_{index}", "mistakes", f"{len(places):,} images ({share}) are right with {winner.name}"
                          f" alone; here the ones where {loser.name} was surest, with what it took them for.",
                          gallery(loser.runs[0], images, sure, f"Only {winner.name} is right"))  # fmt: skip


def gallery(run: Run, images: np.ndarray, places: np.ndarray, title: str) -> Figure:
    names, predicted, sure = run.class_names, run.logits.argmax(axis=1), confidence(run)
    captions = [(names[run.labels[place]], names[predicted[place]], float(sure[place])) for place in places]
    return figures.gallery_figure(images[places], captions, title)


def confidence(run: Run) -> np.ndarray:
    """The largest softmax probability of each image, (N,)."""
    return softmax(run.logits.astype(np.float64), axis=1).max(axis=1)


def seed_of(group: Group) -> str:
    return f" (seed {group.runs[0].seed})" if len(group.runs) > 1 else ""
