"""From finished runs to their report: what `evaluate.py` does, step by step."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from cifar10.commandline.instantiate import check_hints
from cifar10.errors import UserError, cause_of
from cifar10.evaluation import predictions, robustness, selection, tta
from cifar10.inference import finished_runs as finished
from cifar10.inference.finished_runs import FinishedRun, Settings
from cifar10.models.views import VIEWS
from cifar10.report import comparison, numbers
from cifar10.report import groups as groups_of
from cifar10.report import page as report
from cifar10.report.groups import Group, Run
from cifar10.report.metrics import format_per_class

log = logging.getLogger("evaluate")

HINTS = {  # of conf/evaluate.yaml
    "run": str | None,
    "runs": str | list[str] | None,
    "best": int | None,
    "names": list[str | int] | None,
    "labels": str | None,
    "output": str | None,
    "checkpoint": str,
    "data_root": str | None,
    "batch_size": int | None,
    "accelerator": str,
    "tta": str | None,
}
MOST_CLASSES = 30  # of a table on the terminal; per_class.txt has them all
Opened = Sequence[tuple[FinishedRun, Run]]


def settings_of(cfg: DictConfig) -> Settings:
    """How the runs are predicted; UserError for mistakes that show before any is opened."""
    check_hints(cfg, HINTS)
    if cfg.batch_size is not None and cfg.batch_size < 1:
        raise UserError(f"batch_size={cfg.batch_size}: must be at least one image")
    if not isinstance(cfg.get("data") or {}, DictConfig | dict):
        raise UserError(f"data={cfg.data}: must be a data set's name, as in data=cifar101")
    if not isinstance(cfg.get("corruption") or {}, DictConfig | dict):
        raise UserError(f"corruption={cfg.corruption}: is a section; add one with +corruption=all")
    if cfg.tta not in (None, *VIEWS):
        raise UserError(f"tta={cfg.tta}: must be one of {', '.join(VIEWS)}, or null for the images themselves")
    if cfg.tta is not None and (published(cfg) or cfg.get("corruption")):
        raise UserError(f"tta={cfg.tta}: is not measured on corrupted images; leave out one or the other")
    other = None if published(cfg) else cfg.get("data")
    settings = Settings(cfg.checkpoint, other, cfg.data_root, cfg.batch_size, cfg.accelerator, cfg.tta)
    settings.device  # noqa: B018 - a missing device is an error even if all predictions are stored
    if cfg.labels is not None and not Path(cfg.labels).expanduser().is_file():
        raise UserError(f"labels={cfg.labels}: no such file")
    return settings


def published(cfg: DictConfig) -> bool:
    """Whether CIFAR-10-C's files are asked for; they are corruptions of the runs' own test images, not a test set."""
    return "data" in cfg and cfg.data.source == "cifar10c"


def find(cfg: DictConfig) -> tuple[list[Path], dict[str, str]]:
    """The folders to report, and how they were chosen, if they were."""
    if cfg.best is None:
        return finished.find(cfg.run, cfg.runs), {}
    folders, text = selection.best_of(cfg.runs, cfg.best)
    log.info(text)
    return folders, {"chosen": text}


def open_runs(folders: Sequence[Path], settings: Settings) -> tuple[Opened, list[str]]:
    """The runs of these folders with their predictions, and a line for each that has to be left out.

    Raises UserError if a single run, or all of them, cannot be reported.
    """
    opened, left_out = [], []
    for folder in folders:
        try:
            run = finished.open_run(folder)
            found = predictions.predicted(run, settings)
            if settings.tta is not None:
                found.views = tta.predicted(run, settings, found)
            opened.append((run, found))
        except UserError as error:
            if len(folders) == 1:
                raise
            left_out.append(str(error))
    problems = groups_of.check_comparable([run for _, run in opened]) if opened else {}
    left_out += [f"run={folder}: {problem}" for folder, problem in problems.items()]
    opened = [(run, found) for run, found in opened if found.folder not in problems]
    again = groups_of.repeats([run for _, run in opened])
    for folder, same in again.items():
        log.warning(f"{folder}: not counted, as it has the recipe and the seed of {same}; other seeds would say more")
    opened = [(run, found) for run, found in opened if found.folder not in again]
    if not opened:
        raise UserError(f"none of {len(folders)} runs can be reported: {'; '.join(left_out)}")
    return opened, left_out


def read_labels(path: str | None, run: Run) -> np.ndarray | None:
    """Other labels for the test images, (N,), -1 to leave one out; UserError if the file does not fit them."""
    if path is None:
        return None
    try:
        labels = np.load(Path(path).expanduser(), mmap_mode="r", allow_pickle=False)  # a header may claim too much
    except Exception as error:  # numpy raises OSError, ValueError, EOFError, SyntaxError... for damaged files
        raise UserError(f"labels={path}: cannot be read as a .npy of numbers ({cause_of(error)})") from error
    count, classes = run.logits.shape
    if not isinstance(labels, np.ndarray) or labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        found = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else "an archive"
        raise UserError(f"labels={path}: must be {count:,} integers, one per test image; it is {found}")
    if labels.min() < -1 or labels.max() >= classes or not (labels >= 0).any():
        raise UserError(f"labels={path}: must be 0 to {classes - 1}, or -1; they range from {labels.min()} to"
                        f" {labels.max()}")  # fmt: skip
    return labels.astype(np.int64)


def group(opened: Opened, names: Sequence[str] | None) -> list[Group]:
    """The runs grouped by recipe; UserError for a number of names that does not match."""
    try:
        return groups_of.group_runs([run for _, run in opened], names)
    except ValueError as error:
        raise UserError(f"names={list(names or ())}: {error}") from error


def measure_corruptions(cfg: DictConfig, runs: Sequence[FinishedRun], settings: Settings) -> None:
    """Accuracies on corrupted images, if asked for."""
    if published(cfg):
        robustness.measure_published(runs, cfg.data.root, cfg.get("corruption"), settings)
    elif cfg.get("corruption"):
        robustness.measure_computed(runs, cfg.corruption, settings)


def compute(groups: Sequence[Group], labels: np.ndarray | None, file: str | None, settings: Settings) -> dict:
    """Every number of the report. Where recipes differ in the number of training images, the largest are compared."""
    by_size = comparison.efficiency(groups)
    shown = groups_of.largest(groups) if by_size else groups
    try:
        results = comparison.evaluate(shown)
    except ValueError as error:
        raise UserError(f"the predictions cannot be scored: {error}; was training stable?") from error
    if by_size:
        results["efficiency"] = by_size
    if labels is not None and file is not None:
        results["corrected"] = comparison.relabel(shown, labels) | {"file": Path(file).name}
    for key, kind in (("robustness", "computed"), ("cifar10c", "published")):
        if (found := robustness.collect(shown, kind, settings)) is not None:
            results[key] = found
    return results


def folder_of(cfg: DictConfig, opened: Opened, settings: Settings) -> Path:
    """Where the report goes: into the folder of a single run, else into a new one."""
    if cfg.output is not None:
        return Path(cfg.output)
    if len(opened) == 1 and cfg.runs is None:
        return predictions.evaluation_folder(opened[0][0].folder, settings)
    return Path("outputs") / "comparisons" / time.strftime("%Y-%m-%d_%H-%M-%S")


def write(
    folder: Path,
    groups: Sequence[Group],
    results: dict,
    opened: Opened,
    settings: Settings,
    left_out: Sequence[str],
) -> None:
    """Write the report's files; UserError if the folder cannot hold them."""
    run, first = opened[0]
    images = predictions.test_images(run, settings, first.facts["data_sha256"])
    shown = groups_of.largest(groups) if "efficiency" in results else groups
    log.info("drawing the report")
    try:
        report.write(folder, shown, results, images, left_out)
        if len(opened) == 1:
            scores = results["groups"][0]["runs"][0]
            report.write_text(folder / "per_class.txt", format_per_class(scores) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written there ({cause_of(error)})") from error


def conclude(folder: Path, results: dict, left_out: Sequence[str]) -> None:
    """Say what came out, and where the report is; UserError if runs had to be left out."""
    lines = []
    if len(results["groups"]) == 1 and len(results["groups"][0]["runs"]) == 1:
        scores = results["groups"][0]["runs"][0]
        if len(scores["per_class"]) <= MOST_CLASSES:
            lines += [format_per_class(scores), ""]
        lines += [f"test accuracy {scores['acc']:.4f}, loss {scores['loss']:.4f} on {scores['n']:,} test images of"
                  f" {scores['data']}"]  # fmt: skip
    else:
        width = max(len(found["name"]) for found in results["groups"])
        for found in results["groups"]:
            accuracy = numbers.spread_of(found["acc"], numbers.percent)
            seeds = f"{len(found['seeds'])} seed{'s' * (len(found['seeds']) > 1)}"
            lines.append(f"  {found['name']:<{width}}  test accuracy {accuracy}  ({seeds})")
        lines += [found["verdict"] for found in results["comparisons"]]
    if "chosen" in results:
        lines.append(results["chosen"])
    for found in results["groups"]:
        if views := found["runs"][0]["tta"].get("views"):
            acc, loss = (numbers.spread_of(found["tta"][key]) for key in ("acc", "loss"))
            lines.append(f"with test-time augmentation ({views}): {found['name']} accuracy {acc}, loss {loss}")
    if "corrected" in results:
        accuracies = (
            f"{row['name']} {numbers.spread_of(row['acc'], numbers.percent)}" for row in results["corrected"]["groups"]
        )
        lines.append(f"with the labels of {results['corrected']['file']}: {', '.join(accuracies)}")
    for key, what in (("robustness", "corrupted images"), ("cifar10c", "CIFAR-10-C")):
        if key in results:
            means = (f"{row['name']} {numbers.percent(row['mean'])}" for row in results[key]["groups"])
            lines.append(f"mean accuracy on {what}: {', '.join(means)}")
    lines.append(
        f"the report is {os.path.relpath(folder / 'report.html')}; beside it report.md, metrics.json, figures/"
    )
    log.info("\n".join(lines))
    if left_out:
        raise UserError(f"left out of the report: {'; '.join(left_out)}")
