"""A finished run's own data, as it was split and prepared for training."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar10.commandline.instantiate import make
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.inference.finished_runs import FinishedRun, Settings, own_node
from cifar10.models.predictor import Predictor


def rebuild(run: FinishedRun, settings: Settings) -> tuple[CIFAR10DataModule, Predictor]:
    """A run's own data and its predictor; UserError if they do not fit one another, or this version of the project."""
    datamodule, predictor = build_data(run, settings), run.load_predictor(settings.checkpoint)
    connect(run.folder, predictor, datamodule)
    return datamodule, predictor


def build_data(run: FinishedRun, settings: Settings, other: DictConfig | None = None) -> CIFAR10DataModule:
    """The prepared data module of a run, with its own split; other: of another data set, to be tested on.

    What the settings say takes precedence.
    """
    folder, node = run.folder, own_node(run.folder, "data", other or run.cfg.data, CIFAR10DataModule)
    given = {"root": settings.data_root, "eval_batch_size": settings.batch_size}
    given["test_size"] = None if other is None else 1.0  # all of it, unless it has a test split
    try:
        merged: Any = OmegaConf.merge(node, {key: value for key, value in given.items() if value is not None})
        datamodule = make("data", merged, CIFAR10DataModule)
    except UserError as error:
        raise UserError(f"run={folder}: {error}") from error
    if other is None:
        datamodule.keep_split(folder, write=False)
    datamodule.prepare_data()
    return datamodule


def connect(folder: Path, model: Predictor, datamodule: CIFAR10DataModule) -> None:
    """Have the data module number classes and finish images as a model does; UserError if its classes are others."""
    try:
        datamodule.use_classes(model.class_names)
        datamodule.use_preprocessing(model.preprocessing)
    except UserError as error:
        raise UserError(f"run={folder}: {error}") from error
