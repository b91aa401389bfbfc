"""How the runs were trained, each run by itself, and how everything was computed."""

from collections.abc import Iterator
from functools import partial

from cifar10.report import figures
from cifar10.report.document import Block, Bullets, Figure, Findings, Heading, Table
from cifar10.report.numbers import duration, interval, number, percent


def curves(found: Findings) -> Iterator[Block]:
    known = [
        {"name": group.name, "index": index, "switch_epoch": group.runs[0].switch_epoch,
         "runs": [run.epochs for run in group.runs if run.epochs]}
        for index, group in enumerate(found.groups)
        if any(run.epochs for run in group.runs)
    ]  # fmt: skip
    if not known:
        return
    yield Figure("learning_curves", "Validation by epoch (dashed: training): the mean over seeds and, shaded, the range"
                 " from the lowest to the highest. An epoch of phase 1 is far cheaper than one of phase 2. Training may"
                 " look worse than validation: it sees augmented images, with dropout and label smoothing where the"
                 " recipe has them.", partial(figures.learning_curves_figure, known))  # fmt: skip


def every_run(found: Findings) -> Iterator[Block]:
    header = ["model", "seed", "accuracy", "95 % interval", "loss", "macro F1", "ECE", "temperature", "training", "run"]
    rows = [
        [group.name, str(run.seed), percent(scored["acc"]), interval(scored["low"], scored["high"]),
         number(scored["loss"]), number(scored["macro_f1"]), number(scored["calibration"]["ece"]),
         number(scored["temperature"], 2), duration(run.summary.get("seconds")), run.folder]
        for group, summary in zip(found.groups, found.summaries, strict=True)
        for run, scored in zip(group.runs, summary["runs"], strict=True)
    ]  # fmt: skip
    yield Table(header, rows)
    if found.left_out:
        yield Heading("Left out")
        yield Bullets(found.left_out)


def methods(found: Findings) -> Iterator[Block]:
    facts = found.groups[0].runs[0].facts
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    trained = {
        group.name: sorted({f"commit {run.summary['commit']}, {run.summary['hardware']}" for run in group.runs
                            if "commit" in run.summary and "hardware" in run.summary})
        for group in found.groups
    }  # fmt: skip
    yield Bullets([
        "Nothing was chosen on the test images: checkpoints, the end of a phase and the temperature depend on"
        " validation images alone.",
        "Interval of an accuracy: Wilson 1927. Difference on the same images: exact McNemar test (McNemar 1947) and"
        " paired percentile bootstrap (Efron & Tibshirani 1993). Difference over seeds: Welch 1947.",
        "Calibration: expected calibration error over 15 equal bins and temperature scaling (Guo et al. 2017), Brier"
        " score (Brier 1950), accuracy against coverage (Geifman & El-Yaniv 2017).",
        "Every number on this page is in metrics.json, every figure in figures/ as PNG and PDF, each run's logits in"
        " its predictions.npz.",
        *(f"Training of {name}: {'; '.join(places)}." for name, places in trained.items() if places),
        *([f"This page: commit {facts['commit']}; {versions}."] if "commit" in facts else []),
    ])  # fmt: skip
