"""Finding finished runs, and loading their models from their folders."""

import contextlib
import importlib
import inspect
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar10.commandline.instantiate import check_values
from cifar10.errors import UserError, one_line
from cifar10.models.networks.build import KERAS_CNN
from cifar10.models.plain import plain_predictor
from cifar10.models.predictor import Predictor
from cifar10.models.weights import read_checkpoint
from cifar10.run_folder import RunFolder, recipe
from cifar10.shell import program

log = logging.getLogger(__name__)

# classes of earlier versions, and what their settings build today
RENAMED = {"cifar10.models.cnn.ScratchCNN": "cifar10.models.scratch.ScratchClassifier"}
OF_THE_CNN = ("widths", "hidden", "dropout")


@dataclass
class Settings:
    """How finished runs make predictions: the fields of conf/evaluate.yaml of the same names."""

    checkpoint: str = "best"
    data: DictConfig | None = None
    data_root: str | None = None
    batch_size: int | None = None
    accelerator: str = "auto"
    tta: str | None = None

    @cached_property
    def device(self) -> torch.device:
        if self.accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
            raise UserError(f"accelerator={self.accelerator}: must be one of auto, cpu, gpu, cuda, mps")
        found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        wanted = {"auto": found.type, "gpu": "cuda"}.get(self.accelerator, self.accelerator)
        if wanted not in ("cpu", found.type):
            raise UserError(f"accelerator={self.accelerator}: this machine has no such device; use accelerator=auto")
        return torch.device(wanted)


@dataclass
class FinishedRun:
    """A run that has finished: its folder, its configuration, and its run.json."""

    folder: Path
    cfg: DictConfig
    summary: dict

    @property
    def recipe(self) -> dict[str, object]:
        """Every setting that a result depends on, by dotted key; of a file of weights, its content."""
        weights = self.summary.get("weights_sha256")
        return recipe(self.cfg, self.summary.get("watchers", ())) | ({"model.weights": weights[:12]} if weights else {})

    @property
    def validated(self) -> bool:
        """Whether there were validation images, as far as it is known."""
        return self.summary.get("val_images") != 0

    def load_predictor(self, checkpoint: str) -> Predictor:
        """The checkpoint's network as a function of pictures, on the CPU, with a temperature of 1.

        Only classes of this project are built. Raises UserError if the configuration or the checkpoint does not fit
        this version of the project.
        """
        file, target = require_checkpoint(self.folder, checkpoint), str(self.cfg.model.get("_target_"))
        content = read_checkpoint(file)
        with checkpoint_errors(file, target):
            predictor = plain_predictor(target, content)
        if predictor is None:
            model = self.load_model(file, content["hyper_parameters"])
            predictor = Predictor(model, model.preprocessing, model.class_names)
        return predictor

    def load_model(self, file: Path, parameters: dict) -> Any:
        """The ImageClassifier of a checkpoint with these hyperparameters, on the CPU; UserError as `load_predictor`."""
        from cifar10.models.classifier import ImageClassifier  # with Lightning, for which others need not wait

        target = own_class(self.folder, self.cfg.model, ImageClassifier)
        renewed = renew(target, parameters)
        check_values(f"{file}: model", target, OmegaConf.create(parameters | renewed))
        with checkpoint_errors(file, self.cfg.model._target_):
            return target.load_from_checkpoint(file, map_location="cpu", weights_only=True, **renewed).eval()


@contextlib.contextmanager
def checkpoint_errors(file: Path, target: str) -> Iterator[None]:
    """A UserError that names the file for whatever building its network raises."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file}: not a checkpoint of {target} ({reason})") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def renew(target: type, parameters: dict) -> dict[str, object]:
    """What a checkpoint of an earlier version lacks, taken from its parameters: the CNN's used to be the model's."""
    if "network" in parameters or "network" not in inspect.signature(target).parameters:
        return {}
    return {"network": KERAS_CNN | {key: parameters.pop(key) for key in OF_THE_CNN if key in parameters}}


def require_checkpoint(folder: Path, checkpoint: str) -> Path:
    """The checkpoint's file; UserError if it does not exist."""
    file = RunFolder(folder).checkpoint(checkpoint)
    if not file.is_file():
        there = ", ".join(sorted(found.stem for found in file.parent.glob("*.ckpt"))) or "none"
        raise UserError(f"run={folder}: {file} does not exist (available checkpoints: {there})")
    return file


def find(run: str | None, runs: Any) -> list[Path]:
    """The folders given by `run` (None: the newest under outputs/) or `runs`: runs, sweeps' folders, globs.

    A sweep stands for its jobs, in order. Raises UserError if nothing is found.
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
    """The runs that a folder or a glob stands for; any other folder is returned as it is, to be refused by name."""
    if not any(mark in pattern for mark in "*?["):
        folder = Path(os.path.relpath(pattern))
        return jobs(folder) if not is_run(folder) and jobs(folder) else [folder]
    matches = sorted((Path(os.path.relpath(match)) for match in glob(pattern)), key=natural)
    found = [folder for match in matches for folder in ([match] if is_run(match) else jobs(match))]
    if not found:
        raise UserError(f"{key}={pattern}: no run's folder matches")
    return found


def is_run(folder: Path) -> bool:
    return RunFolder(folder).config.is_file()


def jobs(folder: Path) -> list[Path]:
    """The runs below a folder, in natural order: 2 before 10."""
    return sorted((found.parent for found in folder.glob("**/.hydra") if is_run(found.parent)), key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def newest_run() -> Path:
    """The run under outputs/ that finished last."""
    found = sorted(Path("outputs").glob("**/run.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError(
            f"no finished run under outputs/: train one first ({program('python')} train.py), or pass run=FOLDER"
        )
    return found[-1].parent


def open_run(folder: Path) -> FinishedRun:
    """The run in a folder; UserError if it is not a run, or has not finished."""
    run = RunFolder(folder)
    if not run.config.is_file():
        raise UserError(f"run={folder}: not a run's folder, {run.config} does not exist")
    cfg = run.read_config()
    try:
        return FinishedRun(folder, cfg, run.read_summary())
    except FileNotFoundError:
        raise UserError(
            f"run={folder}: has not finished (it has no run.json); resume it: {run.resume_command}"
        ) from None


def own_class(folder: Path, node: DictConfig, base: type) -> type:
    """The class that a stored configuration names; UserError unless it is `base` or a subclass in this project."""
    name, package = str(node.get("_target_")), base.__module__.rpartition(".")[0]
    module, _, last = name.rpartition(".")
    if not re.fullmatch(rf"{re.escape(package)}(\.\w+)+", name):
        raise UserError(f"run={folder}: its configuration names {name}, which is not a class of this project")
    try:
        found = vars(importlib.import_module(module))[last]
    except (ImportError, KeyError) as error:
        if name in RENAMED:
            return own_class(folder, OmegaConf.create({"_target_": RENAMED[name]}), base)
        raise UserError(f"run={folder}: its configuration names {name}, which this version does not have") from error
    if not (isinstance(found, type) and issubclass(found, base) and found.__module__ == module):
        raise UserError(f"run={folder}: its configuration names {name}, which is not a {base.__name__} of this project")
    return found


def own_node(folder: Path, key: str, node: DictConfig, base: type) -> DictConfig:
    """A stored section as plain values, without interpolations and without other classes."""
    own_class(folder, node, base)
    try:
        plain: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"run={folder}: {key}: {one_line(error)}") from error
    for name, value in plain.items():
        items = value if isinstance(value, list) else [value]
        special = str(name).startswith("_") and name != "_target_"
        if special or any(isinstance(item, dict | list) or "${" in str(item) for item in items):
            raise UserError(f"run={folder}: its configuration has {key}.{name}, which is not a number, text or a list")
    return DictConfig(plain)
