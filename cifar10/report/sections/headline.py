"""Who is better, by how much, at what price, and whether the difference is real."""

from collections.abc import Iterator
from functools import partial

from cifar10.report import figures, scores
from cifar10.report.document import Block, Figure, Findings, Heading, Paragraph, Table
from cifar10.report.groups import Run
from cifar10.report.numbers import UNKNOWN, count, engineering, interval, number, p_value, percent, points, spread_of

UNEQUAL = 1.5  # times the images of the smallest class


def unequal_classes(found: Findings) -> Iterator[str]:
    """What accuracy hides where the classes that were tested differ in size."""
    known = [images for images in found.support if images]
    if max(known) <= UNEQUAL * min(known):
        return
    name, share = found.class_names[found.support.index(max(known))], max(known) / sum(known)
    balanced, f1 = (
        ", ".join(f"{group['name']} " * (len(found.groups) > 1) + spread_of(group[key], form)
                  for group in found.summaries)
        for key, form in (("balanced_acc", percent), ("macro_f1", number))
    )  # fmt: skip
    yield (f"The classes are unequal: always answering {name} gives {percent(share, 1)} accuracy. Balanced accuracy,"
           f" the mean recall of the classes: {balanced}; macro F1: {f1}.")  # fmt: skip


def overview(found: Findings) -> Iterator[Block]:
    if len(found.groups) < 2:
        return
    models = [summary | {"accs": group.accs} for group, summary in zip(found.groups, found.summaries, strict=True)]
    yield Figure("overview", "Accuracy (a dot is a seed), recall of each class, and accuracy against training time"
                 " (mean; bars are one standard deviation over seeds).",
                 partial(figures.overview_figure, models, found.class_names))  # fmt: skip
    verdicts = " ".join(comparison["verdict"] for comparison in found.comparisons)
    yield Figure("accuracy", "Test accuracy: the bar is the 95 % Wilson interval of the mean for other test images, the"
                 " small dots are seeds. Each bar stands for one model alone; whether two models differ is decided in"
                 f" pairs: {verdicts}", partial(figures.accuracy_figure, models))  # fmt: skip
    if figures.has_cost(models):
        yield Figure("cost", "Accuracy against its cost, higher and further left being better: means, with bars of one"
                     " standard deviation over seeds where there are several. Times hold for the hardware in the table"
                     " below, operations for any.", partial(figures.cost_figure, models))  # fmt: skip


def side_by_side(found: Findings) -> Iterator[Block]:
    """Every metric with its difference from the first group, then what the networks are and how they were trained."""
    several = len(found.names) > 2
    header = ["", *found.names, *(f"difference, {name}" if several else "difference" for name in found.names[1:])]
    rows = []
    for metric in scores.METRICS:
        values = [metric.within(group) for group in found.summaries]
        gains = [
            UNKNOWN if None in (value, values[0]) else metric.gain(value["mean"] - values[0]["mean"])
            for value in values[1:]
            if metric.gain
        ]
        rows.append([metric.title, *(spread_of(value, metric.form) for value in values), *gains])
    rows[1:1] = [
        [
            "95 % interval (Wilson)",
            *(interval(group["low"], group["high"]) for group in found.summaries),
        ],
        ["seeds", *(str(len(group["seeds"])) for group in found.summaries)],
    ]
    for title, fact in FACTS.items():
        # seeds may differ, in their epochs for instance
        cells = ["; ".join(dict.fromkeys(fact(run) or UNKNOWN for run in group.runs)) for group in found.groups]
        rows.append([title, *cells])
    rows = [[*row, *[""] * (len(header) - len(row))] for row in rows if set(row[1:]) != {UNKNOWN}]
    yield Table(header, rows)
    yield Paragraph(
        "± is the standard deviation over seeds. "
        * found.several_seeds
        + "Lower is better for loss, expected calibration error (ECE) and Brier"
        " score. A FLOP is one floating-point operation, a multiply-add two; training counts forward and backward"
        " passes, but frozen layers forward only and cached ones once."
        + f" A difference is a model's mean minus that of {found.names[0]}, of percentages in percentage points."
        * (len(found.names) > 1),
        "note",
    )


def trained_parameters(run: Run, phase: int) -> str | None:
    phases = run.cost.get("phases", [])
    return count(phases[phase]["trained_parameters"]) if phase < len(phases) else None


# the rows of what a run is: a title, and the text, or nothing where it is unknown
FACTS = {
    "input, pixels": lambda run: str(run.facts.get("image_size", "")),
    "parameters": lambda run: count(run.cost.get("parameters")),
    "trained in phase 1": lambda run: trained_parameters(run, 0),
    "trained in phase 2": lambda run: trained_parameters(run, 1),
    "size of the weights": lambda run: engineering(run.cost.get("bytes"), "B"),
    "forward pass of an image": lambda run: engineering(run.cost.get("forward_flops")),
    "training images": lambda run: count(run.summary.get("train_images")),
    "epochs": lambda run: " + ".join(str(phase["epochs"]) for phase in run.cost.get("phases", [])),
    "trained on": lambda run: run.summary.get("hardware"),
    "test-time augmentation": lambda run: run.views and str(run.views),
    "tested on": lambda run: run.facts.get("hardware"),
}


def difference(found: Findings) -> Iterator[Block]:
    for comparison in found.comparisons:
        yield Heading(f"{comparison['name']} compared with {comparison['baseline']}")
        yield Paragraph(comparison["verdict"])
        yield test_results(comparison)
    if found.comparisons:
        yield Paragraph(
            "Two kinds of uncertainty are kept apart. Other test images: the images are resampled 10,000 times, the"
            " same ones for both models (paired bootstrap), and the trained networks stay as they are. Other seeds:"
            " Welch's interval from the spread of the runs on the same images; with two or three seeds it is wide."
            " McNemar's exact test asks whether two runs err equally often on the images where they disagree.",
            "note",
        )


def test_results(comparison: dict) -> Table:
    seeds, test = comparison["seed_interval"], comparison["mcnemar"]
    first = " (lowest seeds)" if comparison["pairs"] > 1 else ""
    numbers = " and ".join(map(str, comparison["seeds"]))
    rows = [
        ["difference of the mean accuracies, points", points(comparison["difference"])],
        ["for other test images: paired bootstrap, 95 %", span(comparison["bootstrap"])],
        [f"for other seeds ({numbers}): Welch, 95 %",
         span(seeds) if seeds else "unknown: fewer than two seeds of one or of both"],
        [f"images that only {comparison['baseline']} gets right{first}", count(test["only_a"])],
        [f"images that only {comparison['name']} gets right{first}", count(test["only_b"])],
        [f"both right; neither{first}", f"{count(test['both'])}; {count(test['neither'])}"],
        [f"McNemar's exact test{first}", f"p {p_value(test['p_value'])}"],
    ]  # fmt: skip
    if comparison["pairs"] > 1:
        rows.append([f"its largest p over all {comparison['pairs']} pairs of runs",
                     f"p {p_value(comparison['largest_p'])}"])  # fmt: skip
    return Table(["", ""], rows)


def span(found: dict) -> str:
    return interval(found["low"], found["high"], points)
