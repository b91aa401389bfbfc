"""Whether a model knows when it is wrong."""

from collections.abc import Iterator
from functools import partial

from cifar10.report import figures
from cifar10.report.calibration import coverage_curve, reliability_bins
from cifar10.report.document import Block, Figure, Findings, Paragraph
from cifar10.report.numbers import number
from cifar10.report.sections.mistakes import run_name


def reliability(found: Findings) -> Iterator[Block]:
    yield Paragraph(
        "A calibrated model that says 90 % is right nine times in ten. The expected calibration error (ECE) is the mean"
        " distance from that over 15 bins of confidence; the Brier score judges the probabilities as a whole. One"
        " number, the temperature, is fitted on the validation images and divides all logits; no prediction changes."
    )
    curves = []
    for index, (group, summary) in enumerate(zip(found.groups, found.summaries, strict=True)):
        run, scored = group.runs[0], summary["runs"][0]
        before, after = (
            reliability_bins(run.logits, run.labels, temperature=t) | {"ece": scored[stage]["ece"], "temperature": t}
            for stage, t in (("calibration", 1.0), ("calibrated", run.temperature))
        )
        yield Figure(f"reliability_{index}", f"{run_name(group)}: accuracy among predictions of similar confidence,"
                     " with its 95 % interval, which is long where a bin holds few images. Below the diagonal the model"
                     " is overconfident, above it underconfident. The small panels count the images (log axis). The"
                     f" second diagram is after dividing the logits by {number(run.temperature, 2)}"
                     + ("." if len(run.val_labels) else ", as there were no validation images to fit it on."),
                     partial(figures.reliability_figure, before, after, f"{group.name}: calibration"))  # fmt: skip
        coverage, acc = coverage_curve(run.logits, run.labels)
        curves.append({"name": group.name, "coverage": coverage, "acc": acc})
    if found.results["images"] >= 2 * figures.FEWEST:
        yield Figure("coverage", "Accuracy if a model answers only where it is most confident: on the"
                     f" {figures.FEWEST} most confident images at the left, on all at the right, with its 95 %"
                     " interval. Where a curve does not rise to the left, confidence does not tell right from wrong."
                     f" Shown: {', '.join(map(run_name, found.groups))}.",
                     partial(figures.coverage_figure, curves))  # fmt: skip
