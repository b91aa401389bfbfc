"""Finished runs: found, rebuilt from their folders, and predicted; the only place that opens the test images."""

import hashlib
import json
import logging
import os
import pickle
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from cifar10.build import check_devices, make
from cifar10.cost import training_cost
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.features import Progress
from cifar10.data.transforms import Preprocessing
from cifar10.errors import UserError, cause_of
from cifar10.evaluation.comparison import Run
from cifar10.evaluation.report import read_epochs
from cifar10.models.classifier import ImageClassifier
from cifar10.runs import commit, device_name

log = logging.getLogger(__name__)

# what says how a run is watched or where it is computed, not what comes out
NO_PART_OF_THE_RECIPE = (
    *(
        "seed",
        "resume",
        "output_dir",
        "logger",
        "name",
        "data.seed",
        "data.root",
        "data.eval_batch_size",
        "model.weights",
    ),
    *("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir"),
    *("trainer.deterministic", "trainer.benchmark", "trainer.num_sanity_val_steps"),
    *("callbacks.dashboard", "callbacks.epoch_log", "callbacks.timer", "callbacks.checkpoint"),
)


@dataclass
class Settings:
    """How finished runs are predicted: the fields of conf/evaluate.yaml of the same names."""

    checkpoint: str = "best"
    data: DictConfig | None = None
    data_root: str | None = None
    batch_size: int | None = None
    accelerator: str = "auto"

    @cached_property
    def device(self) -> torch.device:
        if self.accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
            raise UserError(f"accelerator={self.accelerator}: must be one of auto, cpu, gpu, mps")
        check_devices(self.accelerator, 1)
        if self.accelerator == "auto":
            return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        return torch.device("cuda" if self.accelerator == "gpu" else self.accelerator)


@dataclass
class FinishedRun:
    """A run that has finished: its folder, its configuration, and what it said of itself in run.json."""

    folder: Path
    cfg: DictConfig
    summary: dict

    @property
    def recipe(self) -> dict[str, object]:
        """Every setting that a result depends on, by dotted key, without the seed and without what is null."""
        flat = dict(leaves(OmegaConf.to_container(self.cfg, resolve=False)))
        outside = tuple(f"{key}." for key in NO_PART_OF_THE_RECIPE)
        return {key: value for key, value in flat.items() if value is not None and not f"{key}.".startswith(outside)}

    def rebuild(self, settings: Settings) -> tuple[CIFAR10DataModule, ImageClassifier]:
        """The run's own data and its model with the checkpoint's weights. Only classes of this project are built.

        Raises UserError where the configuration or the checkpoint does not fit this version of the project.
        """
        file = checkpoint_file(self.folder, settings.checkpoint)
        if not file.is_file():
            there = ", ".join(sorted(found.stem for found in file.parent.glob("*.ckpt"))) or "none"
            raise UserError(f"run={self.folder}: {file} does not exist (checkpoints there: {there})")
        datamodule = build_data(self.folder, self.cfg.data, settings)
        target = own_class(self.folder, self.cfg.model)
        try:
            model = target.load_from_checkpoint(file, map_location="cpu", weights_only=True)
        except (RuntimeError, KeyError, EOFError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{file}: not a checkpoint of {self.cfg.model._target_} ({reason})") from error
        check_classes(self.folder, model, datamodule)
        return datamodule, model.eval()


def own_class(folder: Path, node: DictConfig) -> type:
    """The class that a stored configuration names; UserError unless it is one of this project's."""
    name = str(node.get("_target_"))
    if not name.startswith("cifar10."):
        raise UserError(f"run={folder}: its configuration names {name}, which is no class of this project")
    try:
        return get_class(name)
    except Exception as error:  # Hydra's own error has no narrower kind
        raise UserError(f"run={folder}: its configuration names {name}, which this version does not have") from error


def build_data(folder: Path, node: DictConfig, settings: Settings) -> CIFAR10DataModule:
    """The data module of a configuration, prepared, with what the settings say in place of its own."""
    own_class(folder, node)
    given = {"root": settings.data_root, "eval_batch_size": settings.batch_size}
    try:
        datamodule = make("data", node, **{key: value for key, value in given.items() if value is not None})
    except UserError as error:
        raise UserError(f"run={folder}: {error}") from error
    datamodule.prepare_data()
    return datamodule


def check_classes(folder: Path, model: ImageClassifier, datamodule: CIFAR10DataModule) -> None:
    if list(model.class_names) != list(datamodule.class_names):
        raise UserError(
            f"run={folder}: was trained on the classes {', '.join(model.class_names)};"
            f" {datamodule.source.name} has {', '.join(datamodule.class_names)}"
        )


def checkpoint_file(folder: Path, checkpoint: str) -> Path:
    return folder / "checkpoints" / f"{checkpoint}.ckpt"


def find(run: str | None, runs: object) -> list[Path]:
    """The folders meant by `run` (None: the newest under outputs/) or `runs`: runs, sweeps' folders, globs.

    A sweep stands for its jobs in their order. Raises UserError if nothing is there.
    """
    if run is not None and runs is not None:
        raise UserError("give run=FOLDER for one run, or 'runs=[FOLDER,...]' for several, not both")
    if runs is None:
        wanted = [newest_run()] if run is None else [run]
    else:
        wanted = [runs] if isinstance(runs, str) else list(runs)
    found = [folder for pattern in wanted for folder in expand(str(pattern), "run" if runs is None else "runs")]
    if not found:
        raise UserError("runs=[]: names no run")
    return list(dict.fromkeys(found))


def expand(pattern: str, key: str) -> list[Path]:
    """The runs that a folder or a glob stands for; a folder that is none is handed on, to be refused by its name."""
    if not any(mark in pattern for mark in "*?["):
        folder = Path(os.path.relpath(pattern))
        return jobs(folder) if not is_run(folder) and jobs(folder) else [folder]
    matches = sorted((Path(os.path.relpath(match)) for match in Path().glob(pattern)), key=natural)
    if Path(pattern).is_absolute():
        matches = sorted(Path("/").glob(pattern[1:]), key=natural)
    found = [folder for match in matches for folder in ([match] if is_run(match) else jobs(match))]
    if not found:
        raise UserError(f"{key}={pattern}: no run's folder matches")
    return found


def is_run(folder: Path) -> bool:
    return (folder / ".hydra" / "config.yaml").is_file()


def jobs(folder: Path) -> list[Path]:
    """The runs right under a folder, in natural order: 2 before 10."""
    return sorted((config.parent.parent for config in folder.glob("*/.hydra/config.yaml")), key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def newest_run() -> Path:
    """The run under outputs/ whose best checkpoint is the newest."""
    found = sorted(Path("outputs").glob("**/checkpoints/best.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError("no finished run lies under outputs/: train one first (python train.py), or pass run=FOLDER")
    return found[-1].parent.parent


def open_run(folder: Path) -> FinishedRun:
    """The run in a folder; UserError if it is no run, or has not finished."""
    file = folder / ".hydra" / "config.yaml"
    if not file.is_file():
        raise UserError(f"run={folder}: not a run's folder, {file} does not exist")
    try:
        cfg = OmegaConf.load(file)
        sections = [cfg.data._target_, cfg.model._target_, cfg.name, cfg.seed]
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"run={folder}: {file} is not a configuration of this project ({reason})") from error
    if None in sections:
        raise UserError(f"run={folder}: {file} is not a configuration of this project")
    try:
        summary = json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        raise UserError(
            f"run={folder}: has not finished (no run.json in it); go on with it: python train.py resume={folder}"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"run={folder}: {folder / 'run.json'} cannot be read ({cause_of(error)})") from error
    return FinishedRun(folder, cfg, summary)


def predicted(run: FinishedRun, settings: Settings) -> Run:
    """The run with its predictions: those stored in its evaluation folder if they are this checkpoint's, else new."""
    file = evaluation_folder(run.folder, settings) / "predictions.npz"
    checkpoint = checkpoint_file(run.folder, settings.checkpoint)
    stored = read_predictions(file)
    if stored is not None:
        facts = stored["facts"]
        if checkpoint.is_file():
            fits = facts["checkpoint_sha256"] == sha256(checkpoint.read_bytes())
        else:
            fits = facts["checkpoint"] == settings.checkpoint
            log.warning(f"{run.folder}: {checkpoint.name} is gone; its stored predictions are used")
        if fits:
            log.info(f"{run.folder}: predictions are there already")
            return assemble(run, stored)
    log.info(f"{run.folder}: predicting with {checkpoint.name} on {device_name(settings.device)}")
    arrays = predict_run(run, settings)
    file.parent.mkdir(exist_ok=True)
    write_predictions(file, arrays)
    return assemble(run, arrays)


def assemble(run: FinishedRun, arrays: dict) -> Run:
    facts = arrays["facts"] | {"summary": run.summary}
    rows = read_epochs(run.folder / "metrics.csv")
    names = [str(name) for name in arrays["class_names"]]
    logits = {key: arrays[key] for key in ("logits", "labels", "val_logits", "val_labels")}
    return Run(run.cfg.name, run.cfg.seed, str(run.folder), run.recipe, names, facts=facts, epochs=rows, **logits)


def evaluation_folder(folder: Path, settings: Settings) -> Path:
    """Where a run's evaluation lies: `evaluation`, or for another data set `evaluation_SOURCE`."""
    return folder / ("evaluation" if settings.data is None else f"evaluation_{settings.data.source}")


def test_images(run: FinishedRun, settings: Settings, data_sha256: str) -> Tensor | None:
    """The test images that were predicted, uint8 (N, 3, H, W); None, with a warning, where they are not at hand."""
    try:
        datamodule = build_data(run.folder, settings.data or run.cfg.data, settings)
        images, labels = datamodule.source.load("test")
    except UserError as error:
        log.warning(f"no pictures: {error}")
        return None
    if fingerprint(images, labels) == data_sha256:
        return images
    log.warning(f"no pictures: {datamodule.source.name} has other test images now than were predicted")
    return None


def fingerprint(images: Tensor, labels: Tensor) -> str:
    return sha256(images.numpy().tobytes() + labels.numpy().tobytes())


def predict_run(run: FinishedRun, settings: Settings) -> dict:
    """Logits and labels of the test and of the validation images, and the facts beside them."""
    own = settings if settings.data is None else replace(settings, data=None, data_root=None)
    datamodule, model = run.rebuild(own)
    tested = datamodule if settings.data is None else build_data(run.folder, settings.data, settings)
    check_classes(run.folder, model, tested)
    images, labels = tested.source.load("test")
    datamodule.setup("validate")
    val = datamodule.indices["val"]
    val_images, val_labels = (tensor[val] for tensor in datamodule.loaded["train"])
    batch, device = datamodule.eval_batch_size, settings.device
    callbacks = run.cfg.get("callbacks") or {}
    two_phase = callbacks.get("two_phase")
    if two_phase:
        own_class(run.folder, two_phase)
    rows, counts = read_epochs(run.folder / "metrics.csv"), [len(datamodule.indices[name]) for name in ("train", "val")]
    cost = training_cost(model, two_phase and make("callbacks.two_phase", two_phase), rows, *counts)
    with Progress(len(images) + len(val), "predicting") as progress:
        begun = time.perf_counter()
        logits = predict(model, images, batch, device, progress)
        seconds = time.perf_counter() - begun
        val_logits = predict(model, val_images, batch, device, progress)
    facts = {
        "data": tested.source.name,
        "synthetic": tested.source.synthetic,
        "data_sha256": fingerprint(images, labels),
        "checkpoint": settings.checkpoint,
        "checkpoint_sha256": sha256(checkpoint_file(run.folder, settings.checkpoint).read_bytes()),
        "image_size": model.preprocessing["image_size"],
        "hardware": device_name(device),
        "images_per_second": round(len(images) / seconds, 1),
        "cost": cost,
        "commit": commit(),
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    return {
        "logits": logits,
        "labels": labels.numpy(),
        "val_logits": val_logits,
        "val_labels": val_labels.numpy(),
        "class_names": np.array(model.class_names),
        "facts": facts,
    }


def predict(
    model: ImageClassifier, images: Tensor, batch_size: int, device: torch.device, progress: Progress | None = None
) -> np.ndarray:
    """Logits (N, C) of uint8 images (N, 3, H, W), in fp32 on every device."""
    model, preprocessing = model.to(device), Preprocessing(**model.preprocessing)
    logits = []
    with torch.inference_mode():
        for part in images.split(batch_size):
            logits.append(model(preprocessing(part.to(device))).float().cpu())
            if progress is not None:
                progress.update(len(part))
    return torch.cat(logits).numpy()


def write_predictions(file: Path, arrays: dict) -> None:
    """Write predictions.npz whole or not at all."""
    aside = file.with_suffix(".tmp.npz")
    np.savez_compressed(aside, **arrays | {"facts": np.array(json.dumps(arrays["facts"]))})
    os.replace(aside, file)


def read_predictions(file: Path) -> dict | None:
    """What `write_predictions` wrote; None if there is nothing, or nothing that this version can read."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            names = ("logits", "labels", "val_logits", "val_labels", "class_names", "facts")
            arrays = {name: stored[name] for name in names}
        return arrays | {"facts": json.loads(str(arrays["facts"]))}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        log.warning(f"{file}: not usable ({cause_of(error)}); predicting anew")
        return None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every leaf of nested dicts; an empty dict is one."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
