"""Finished runs on corrupted test images: computed on the fly, or CIFAR-10-C's published files."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from cifar10.commandline.instantiate import matches
from cifar10.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, names_of
from cifar10.data.corruptions.published import PUBLISHED_CORRUPTIONS, available_cifar10c, load_cifar10c
from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.data.split import stratified_order
from cifar10.errors import UserError
from cifar10.evaluation.predictions import (
    checkpoint_sha256,
    evaluation_folder,
    fingerprint,
    load_test,
    predict,
)
from cifar10.files import atomic_write
from cifar10.inference.finished_runs import FinishedRun, Settings
from cifar10.progress import Progress
from cifar10.report.groups import Group
from cifar10.untrusted import fits

log = logging.getLogger(__name__)

PART = 1000  # images that are corrupted at once
FORM = {"checkpoint_sha256": str, "data_sha256": str, "images": int, "clean": float, "acc": {}}  # of these files
FILES = {"computed": "corruptions.json", "published": "cifar10c.json"}


def check(corruption: DictConfig) -> tuple[list[str], list[int], int | None]:
    """The names, severities and number of images of a `corruption` group; UserError for impossible ones."""
    names, severities, images = (corruption.get(key) for key in ("names", "severities", "images"))
    if not matches(names, list[str]) or not matches(severities, list[int]):
        raise UserError(
            f"corruption: names={names}, severities={severities}: must be lists, of text and of whole numbers"
        )
    try:
        names = names_of(names)
    except ValueError as error:
        raise UserError(f"corruption.{error}") from error
    if not names or not severities or not set(severities) <= set(SEVERITIES):
        raise UserError("corruption: names and severities must not be empty, and severities must be from 1 to 5")
    if images is not None and (not isinstance(images, int) or isinstance(images, bool) or images < 1):
        raise UserError(f"corruption.images={images}: must be a number of test images, or null for all")
    return names, sorted(severities), images


def measure_computed(runs: Sequence[FinishedRun], corruption: DictConfig, settings: Settings) -> None:
    """Write the accuracies of runs on corrupted test images into their evaluation folders; existing ones are kept."""
    names, severities, count = check(corruption)
    part = load_test(runs[0], settings)
    chosen = np.sort(stratified_order(part.labels.numpy(), seed=0)[:count])
    numbers = torch.from_numpy(chosen)
    identity = {"data_sha256": fingerprint(part), "images": len(chosen)}
    images, labels = part[numbers], part.labels[numbers]
    todo = [(name, severity) for name in names for severity in severities]

    def condition(name: str, severity: int) -> tuple[Iterator[Tensor], Tensor]:
        parts = zip(images.split(PART), numbers.split(PART), strict=True)
        return (corrupt(part.to(settings.device), name, severity, n) for part, n in parts), labels

    measure(runs, todo, condition, identity, (images, labels), "computed", settings)


def measure_published(
    runs: Sequence[FinishedRun], root: str, corruption: DictConfig | None, settings: Settings
) -> None:
    """The same on CIFAR-10-C's published files in `root`."""
    names = available_cifar10c(root)
    severities = list(SEVERITIES)
    if corruption is not None:
        wanted, severities, _ = check(corruption)
        names = [name for name in names if name in wanted]
    part = load_test(runs[0], replace(settings, data=None))
    clean = part[:], part.labels
    todo = [(name, severity) for name in names for severity in severities]

    def condition(name: str, severity: int) -> tuple[Iterator[Tensor], Tensor]:
        images, labels = load_cifar10c(root, name, severity)
        return iter(images.split(PART)), labels

    measure(runs, todo, condition, {"images": len(clean[1])}, clean, "published", settings)


def measure(
    runs: Sequence[FinishedRun],
    todo: Sequence[tuple[str, int]],
    condition: Callable[[str, int], tuple[Iterator[Tensor], Tensor]],
    identity: dict,
    clean: tuple[Tensor, Tensor],
    kind: str,
    settings: Settings,
) -> None:
    """Predict each condition that some run lacks with all runs at once, so that its images are computed only once.

    todo: names and severities. condition: gives the images, in parts, and all labels of one of them. identity: what
    stored results must match to be kept. clean: the images without corruption, and their labels.
    """
    files = {run.folder: evaluation_folder(run.folder, settings) / FILES[kind] for run in runs}
    models, results = {}, {}
    for run in runs:
        model = models[run.folder] = run.load_predictor(settings.checkpoint).to(settings.device)
        if kind == "published" and model.class_names != CIFAR10.class_names:
            raise UserError(f"data=cifar10c: {run.folder} was not trained on CIFAR-10's classes")
        own = identity | {"checkpoint_sha256": checkpoint_sha256(run, settings)}
        stored = read(files[run.folder])
        fits = stored and all(stored.get(key) == value for key, value in own.items())
        results[run.folder] = stored if fits else {**own, "acc": {}}
    missing = [
        (name, severity)
        for name, severity in todo
        if any(str(severity) not in result["acc"].get(name, {}) for result in results.values())
    ]
    if not missing:
        log.info("corrupted images: using the stored accuracies")
        return
    batch = settings.batch_size or min(run.cfg.data.eval_batch_size for run in runs)
    total = len(clean[1]) * (len(missing) + 1)
    log.info(f"{len(missing)} corruptions of {len(clean[1]):,} test images, {len(runs)} run{'s' * (len(runs) > 1)}")
    with Progress(total, "corrupted images") as progress:
        for folder, model in models.items():
            logits = predict(model, clean[0], batch)
            results[folder]["clean"] = float((logits.argmax(1) == clean[1].numpy()).mean())
        progress.update(len(clean[1]))
        for name, severity in missing:
            parts, labels = condition(name, severity)
            right, done = dict.fromkeys(models, 0), 0
            for part in parts:
                truth = labels[done : done + len(part)].numpy()
                for folder, model in models.items():
                    right[folder] += int((predict(model, part, batch).argmax(1) == truth).sum())
                done += len(part)
                progress.update(len(part))
            for folder, count in right.items():
                results[folder]["acc"].setdefault(name, {})[str(severity)] = count / done
                write(files[folder], results[folder])  # an interruption loses only the current condition


def read(file: Path) -> dict | None:
    """What `write` wrote; None if there is nothing, or nothing that this version can read."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    names, severities = {*CORRUPTIONS, *PUBLISHED_CORRUPTIONS}, {*map(str, SEVERITIES)}
    well_formed = fits(found, FORM) and FORM.keys() - {"data_sha256"} <= found.keys() and names >= found["acc"].keys()
    if not well_formed or not all(fits(one, dict.fromkeys(one, float)) for one in found["acc"].values()):
        return None
    return found if all(severities >= one.keys() for one in found["acc"].values()) else None


def write(file: Path, result: dict) -> None:
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file, "w") as whole:
        whole.write(json.dumps(result, indent=2) + "\n")


def collect(groups: Sequence[Group], kind: str, settings: Settings) -> dict | None:
    """What was measured of all runs of the groups; None unless all were, as they are now, on equally many images.

    Means over a group's seeds: `clean`, `acc` (corruptions, severities), and `mean` of all of these.
    """
    runs = [run for group in groups for run in group.runs]
    found = {run.folder: read(evaluation_folder(Path(run.folder), settings) / FILES[kind]) for run in runs}
    results = [
        result
        for run in runs
        if (result := found[run.folder])
        and all(result.get(key, run.facts[key]) == run.facts[key] for key in ("checkpoint_sha256", "data_sha256"))
    ]
    if len(results) < len(runs) or len({result["images"] for result in results}) > 1:
        return None
    names = [name for name in results[0]["acc"] if all(name in result["acc"] for result in results)]
    severities = [s for s in map(str, SEVERITIES) if all(s in r["acc"][name] for r in results for name in names)]
    if not names or not severities:
        return None
    summaries = []
    for group in groups:
        mine: list[Any] = [found[run.folder] for run in group.runs]
        acc = np.mean([[[one["acc"][name][s] for s in severities] for name in names] for one in mine], axis=0)
        clean = float(np.mean([one["clean"] for one in mine]))
        summaries.append({"name": group.name, "clean": clean, "acc": acc.tolist(), "mean": float(acc.mean())})
    severities = [int(severity) for severity in severities]
    return {"images": results[0]["images"], "corruptions": names, "severities": severities, "groups": summaries}
