"""From a data section to a page about it: what `python -m cifar10 explore` does, step by step."""

import json
import logging
import os
import shlex
import time
import typing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cifar10.commandline import claim
from cifar10.commandline.instantiate import describe, make, matches
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError, cause_of, one_line
from cifar10.exploration import page, projector
from cifar10.exploration.attention import attention, group_facts
from cifar10.exploration.collect import Collection, collect
from cifar10.exploration.features import load_backbone
from cifar10.exploration.findings import SPLITS, Findings, look
from cifar10.report.page import write_text
from cifar10.run_folder import overrides_of
from cifar10.shell import program

log = logging.getLogger("explore")


@dataclass
class Settings:
    """Of conf/explore.yaml, which says what they mean."""

    output: str | None
    images: int
    backbone: str | None
    pretrained: bool
    weights: str | None
    image_size: int
    label_splits: list[str]


def settings_of(cfg: DictConfig) -> Settings:
    """How to explore; UserError for a mistake."""
    for key, hint in typing.get_type_hints(Settings).items():
        if not matches(cfg.get(key), hint):
            raise UserError(f"{key}={one_line(cfg.get(key))}: must be {describe(hint)}")
    settings = Settings(**{key: cfg[key] for key in typing.get_type_hints(Settings)})
    if settings.images < 2:
        raise UserError(f"images={settings.images}: must be at least 2")
    if settings.image_size < 1:
        raise UserError(f"image_size={settings.image_size}: must be at least one pixel")
    if unknown := [split for split in settings.label_splits if split not in SPLITS]:
        raise UserError(f"label_splits: {unknown[0]} is no split; there are {', '.join(SPLITS)}")
    return settings


def read(cfg: DictConfig) -> Collection:
    """The pictures that the data section describes, at the size at which the backbone sees them."""
    datamodule = make("data", cfg.data, CIFAR10DataModule)
    datamodule.use_preprocessing(Preprocessing(cfg.image_size))
    return collect(datamodule)


def explore(found: Collection, settings: Settings) -> Findings:
    """Everything that there is to find."""
    model = None
    if settings.backbone is not None:
        model = load_backbone(settings.backbone, settings.pretrained, settings.weights, settings.image_size)
    return look(found, settings.images, model, settings.label_splits)


def folder_of(settings: Settings) -> Path:
    """Where the page goes: a folder that exists now, before minutes of work, and is removed if it stays empty."""
    if settings.output is not None:
        return claim.make(Path(settings.output).expanduser())
    return claim.make_another(Path("outputs") / "explore" / time.strftime("%Y-%m-%d_%H-%M-%S"))


def write(folder: Path, findings: Findings) -> None:
    """Write the page, explore.json and TensorBoard's projector; UserError if the folder cannot hold them."""
    log.info("writing the page")
    try:
        write_text(folder / "explore.json", json.dumps(facts(findings), indent=1) + "\n")
        if findings.components is not None:
            projector.write(folder, findings)
        page.write(folder, findings)
    except OSError as error:
        raise UserError(f"output={folder}: the page cannot be written there ({cause_of(error)})") from error


def facts(findings: Findings) -> dict:
    """All findings, with class names and file names, ready for JSON."""
    found = findings.collection
    names, sizes = found.class_names, found.sizes
    return {
        "data": found.name,
        "pictures": len(found),
        "looked_at_closely": len(findings.chosen),
        "compared_for_near_duplicates": findings.compared,
        "attention": attention(findings),
        "missing": findings.missing,
        "counts": {split: dict(zip(names, each.tolist(), strict=True)) for split, each in findings.counts.items()},
        "sizes": {
            "smallest": sizes.min(0).tolist(),
            "median": np.median(sizes, axis=0).tolist(),
            "largest": sizes.max(0).tolist(),
        },
        "pixels": {"mean": findings.mean.round(5).tolist(), "std": findings.std.round(5).tolist()},
        "unreadable": found.unreadable,
        "exact_duplicates": [group_facts(findings, group) for group in findings.exact],
        "near_duplicates": [group_facts(findings, group) for group in findings.near],
        "label_errors": [
            {"file": found.files[one.place], "split": str(found.splits[one.place]), "label": names[one.label],
             "suggested": names[one.suggested], "confidence": round(one.confidence, 4)}
            for one in findings.label_errors
        ],
    }  # fmt: skip


def conclude(folder: Path, findings: Findings) -> None:
    """Say what was found, where the page is, and what to do next."""
    given = [one for one in overrides_of(HydraConfig.get()) if one.lstrip("+").startswith(("data=", "data."))]
    train = f"{program('python')} {shlex.join(['train.py', *given, 'model=efficientnet_b0'])}"
    place = os.path.relpath(folder)
    turned = f"{program('tensorboard')} --logdir {shlex.quote(place)}"
    log.info("\n".join([
        *(f"- {line}" for line in attention(findings)),
        *findings.missing,
        f"the page is {os.path.join(place, 'explore.html')}; beside it explore.json",
        *([f"  to turn the map around  {turned}"] * (findings.map is not None)),
        f"  to train                {train}",
    ]))  # fmt: skip
