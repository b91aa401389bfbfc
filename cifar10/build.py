"""From a configuration to the objects of a run: data module, model, trainer."""

import inspect
import logging
import os
import pickle
import sys
import types
import typing
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.transforms import Preprocessing
from cifar10.errors import UserError
from cifar10.models.classifier import ImageClassifier

log = logging.getLogger(__name__)

# Lightning's advice on things that are so on purpose.
for message in ("isn't a DataLoader", "modules in eval mode", "smaller than the logging interval", "exists and is not empty", "LeafSpec"):
    warnings.filterwarnings("ignore", message=f".*{message}.*")
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def build_data(cfg: DictConfig) -> CIFAR10DataModule:
    """The data module, its files there and its training part loaded, so that the class names are known."""
    datamodule = make("data", cfg.data)
    datamodule.prepare_data()
    return datamodule


def build_model(cfg: DictConfig, datamodule: CIFAR10DataModule) -> ImageClassifier:
    """The model for the data's classes; the data module learns which preprocessing it wants."""
    model = make("model", cfg.model, class_names=list(datamodule.class_names))
    datamodule.preprocessing = Preprocessing(**model.preprocessing)
    return model


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with its callbacks and logger, checked against the machine."""
    trainer = cfg.trainer
    check_devices(trainer.accelerator, trainer.devices)
    callbacks = [make(f"callbacks.{name}", node) for name, node in cfg.callbacks.items() if node is not None]
    show_bar = trainer.enable_progress_bar and sys.stderr.isatty()  # in a file, the line an epoch says it all
    if show_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10, leave=False))
    return make(
        "trainer",
        trainer,
        enable_progress_bar=show_bar,
        precision=resolve_precision(trainer.precision, trainer.accelerator),
        callbacks=callbacks,
        logger=make("logger", cfg.logger) if cfg.logger is not None else False,
    )


def make(key: str, node: DictConfig, **given: object) -> object:
    """Instantiate a configuration node, UserError for a key or value that its class does not take."""
    target = get_class(node._target_)
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__)
    for name, value in node.items():
        if name.startswith("_"):
            continue
        if name not in parameters:
            known = ", ".join(parameter for parameter in parameters if parameter not in given)
            raise UserError(f"{key}.{name}: {target.__name__} has no such setting; it has: {known}")
        if name not in given and not matches(value, hints.get(name, object)):
            raise UserError(f"{key}.{name}={value}: must be {describe(hints[name])}")
    try:
        return instantiate(node, **given, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, MisconfigurationException | ValueError):
            raise UserError(f"{key}: {' '.join(str(cause).split())}") from error
        raise


def matches(value: object, hint: object) -> bool:
    """Whether a configuration value is of a type; true for every type that configurations cannot spell."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(matches(value, option) for option in typing.get_args(hint))
    if hint in (bool, str, type(None)):
        return value is None if hint is type(None) else isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return True


def describe(hint: object) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    options = typing.get_args(hint) or (hint,)
    return " or ".join(words.get(option, str(option)) for option in options)


def check_devices(accelerator: str, devices: object) -> None:
    """UserError if more GPUs are asked for than there are."""
    gpus = torch.cuda.device_count()
    wanted = len(devices) if isinstance(devices, list | tuple) else devices
    if isinstance(wanted, int) and wanted > max(gpus, 1) and accelerator in ("auto", "gpu", "cuda"):
        hint = ", or trainer.accelerator=cpu for processes on the CPU" if gpus == 0 else ""
        raise UserError(f"trainer.devices={wanted}: this machine has {gpus} GPUs; use trainer.devices={max(gpus, 1)}{hint}")
    if accelerator in ("gpu", "cuda") and gpus == 0:
        raise UserError(f"trainer.accelerator={accelerator}: this machine has no GPU; use trainer.accelerator=auto")


def resolve_precision(precision: str | int, accelerator: str) -> str | int:
    """ "auto" as bf16-mixed on a GPU that has it, 16-mixed on other GPUs, and fp32 on the CPU.

    bf16 autocast is ten times slower than fp32 on CPUs without native support.
    """
    if precision != "auto":
        return precision
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def check_seed(seed: object) -> None:
    """UserError unless the seed is one that every generator takes."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: must be a whole number from 0 to {2**32 - 1}")


def announce(cfg: DictConfig, model: ImageClassifier, datamodule: CIFAR10DataModule, trainer: pl.Trainer) -> None:
    """Say what is trained, on what, where and how."""
    datamodule.setup("fit")
    device = trainer.strategy.root_device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    train, val = (len(datamodule.splits[name][2]) for name in ("train", "val"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if datamodule.source.synthetic:
        log.warning("DRAWN IMAGES, NOT CIFAR-10: no figure of this run says anything about CIFAR-10")
    log.info(f"{cfg.name}: {parameters:,} parameters, input {model.preprocessing['image_size']} px")
    log.info(f"{datamodule.source.name}: {train:,} images to train on, {val:,} to validate")
    log.info(f"{where}, precision {trainer.precision}; results go to {os.path.relpath(cfg.output_dir)}")


def conclude(cfg: DictConfig, datamodule: CIFAR10DataModule, trainer: pl.Trainer) -> None:
    """Put settings and result into TensorBoard's HPARAMS tab, and say what came out and what to do next."""
    metrics = {name: float(trainer.callback_metrics[name]) for name in ("val/acc", "val/loss")}
    if trainer.logger is not None:
        trainer.logger.log_hyperparams(hyperparameters(cfg), {f"best/{k}": v for k, v in metrics.items()})
        trainer.logger.finalize("success")
    folder = os.path.relpath(cfg.output_dir)
    log.info(
        "done\n"
        f"  data                  {datamodule.source.name}\n"
        f"  validation accuracy   {metrics['val/acc']:.4f}\n"
        f"  validation loss       {metrics['val/loss']:.4f}\n"
        f"  run                   {folder}\n"
        f"  test it               python evaluate.py run={folder}\n"
        f"  curves                tensorboard --logdir outputs"
    )


def hyperparameters(cfg: DictConfig) -> dict[str, object]:
    """The settings that a result can depend on, by dotted key."""
    nodes = {"seed": cfg.seed, "data": cfg.data, "model": cfg.model, "callbacks": cfg.callbacks.get("two_phase")}
    nodes["trainer"] = {key: cfg.trainer[key] for key in ("max_epochs", "precision")}
    settings = OmegaConf.to_container(OmegaConf.create(nodes), resolve=True)
    flat = {}
    for group, values in settings.items():
        for key, value in values.items() if isinstance(values, dict) else [(None, values)]:
            if key not in ("_target_", "root", "seed"):
                flat[f"{group}.{key}" if key else group] = value if isinstance(value, int | float) else str(value)
    return flat


@dataclass
class Run:
    """A finished run, rebuilt from its folder."""

    folder: Path
    cfg: DictConfig
    datamodule: CIFAR10DataModule
    model: ImageClassifier


def load_run(folder: str | None, checkpoint: str, data_root: str | None, batch_size: int | None) -> Run:
    """A run's data and model, from the configuration and the checkpoint in its folder (None: the newest).

    data_root, batch_size: in place of the run's own. Only classes of this project are built.
    Raises UserError if the folder is no run, or lacks the checkpoint.
    """
    path = newest_run() if folder is None else Path(folder)
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if not (path / ".hydra" / "config.yaml").is_file():
        raise UserError(f"run={path}: not a run's folder, {path / '.hydra' / 'config.yaml'} does not exist")
    if not file.is_file():
        there = ", ".join(sorted(found.stem for found in file.parent.glob("*.ckpt"))) or "none"
        raise UserError(f"run={path}: {file} does not exist (checkpoints there: {there})")
    cfg = OmegaConf.load(path / ".hydra" / "config.yaml")
    for node in (cfg.data, cfg.model):
        if not str(node._target_).startswith("cifar10."):
            raise UserError(f"run={path}: its configuration names {node._target_}, which is no class of this project")
    given = {"root": data_root, "eval_batch_size": batch_size}
    datamodule = make("data", cfg.data, **{key: value for key, value in given.items() if value is not None})
    datamodule.prepare_data()
    try:
        model = get_class(cfg.model._target_).load_from_checkpoint(file, map_location="cpu", weights_only=True)
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{file}: not a checkpoint of {cfg.model._target_} ({str(error).splitlines()[0]})") from error
    if list(model.class_names) != list(datamodule.class_names):
        raise UserError(f"run={path}: was trained on the classes {', '.join(model.class_names)}; the data has others")
    datamodule.preprocessing = Preprocessing(**model.preprocessing)
    return Run(path, cfg, datamodule, model)


def newest_run() -> Path:
    """The run under outputs/ whose best checkpoint is the newest."""
    found = sorted(Path("outputs").glob("**/checkpoints/best.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError("there is no finished run under outputs/: train one first (python train.py), or pass run=FOLDER")
    return found[-1].parent.parent


def predict(run: Run, accelerator: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and labels (N,) of the test split, in the source's order and in fp32 on every device."""
    check_devices(accelerator, 1)
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    batches = trainer.predict(run.model, datamodule=run.datamodule, weights_only=True)
    logits, labels = (torch.cat(part).cpu().numpy() for part in zip(*batches, strict=True))
    return logits, labels


def provenance(run: Run, checkpoint: str) -> dict[str, object]:
    """What was evaluated, on what, with what."""
    return {
        "run": str(run.folder),
        "checkpoint": checkpoint,
        "data": run.datamodule.source.name,
        "synthetic": run.datamodule.source.synthetic,
        "split": "test",
        "seed": run.cfg.seed,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
