"""A run as people and commands see it: what it says of itself, and how it is rebuilt from its folder."""

import json
import logging
import os
import pickle
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from cifar10.build import check_devices, make
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.models.classifier import ImageClassifier

log = logging.getLogger(__name__)


def announce(cfg: DictConfig, model: ImageClassifier, datamodule: CIFAR10DataModule, trainer: pl.Trainer) -> None:
    """Say what is trained, on what, where and how; from here on the first process speaks for all."""
    if not trainer.is_global_zero:
        logging.disable(logging.INFO)
    datamodule.setup("fit")
    train, val = (len(datamodule.indices[name]) for name in ("train", "val"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if datamodule.source.synthetic:
        log.warning("DRAWN IMAGES, NOT CIFAR-10: no figure of this run says anything about CIFAR-10")
    log.info(f"{cfg.name}: {parameters:,} parameters, input {model.preprocessing['image_size']} px")
    log.info(f"{datamodule.source.name}: {train:,} images to train on, {val:,} to validate")
    compiled = ", compiled" if model.compile_mode else ", frozen part compiled" if model.compile_frozen else ""
    log.info(
        f"{hardware(trainer)}, precision {trainer.precision}{compiled}; torch {torch.__version__}, commit {commit()}"
    )
    two_phase = cfg.callbacks.get("two_phase")
    if two_phase and not two_phase.get("cache_views") and trainer.strategy.root_device.type == "cpu":
        log.info("a long way on a CPU: experiment=laptop is shorter, or callbacks.two_phase.cache_views=2")
    log.info(f"results go to {os.path.relpath(cfg.output_dir)}")


def conclude(cfg: DictConfig, datamodule: CIFAR10DataModule, trainer: pl.Trainer) -> None:
    """Put settings and result into TensorBoard's HPARAMS tab and `run.json`, say what came out and what to do next."""
    metrics = {name: float(trainer.callback_metrics[name]) for name in ("val/acc", "val/loss")}
    if trainer.logger is not None:
        best = {f"best/{name}": value for name, value in metrics.items()}
        trainer.logger.log_hyperparams(hyperparameters(cfg), best, trainer.global_step)
        trainer.logger.finalize("success")
    if trainer.is_global_zero:
        write_summary(Path(cfg.output_dir), datamodule, trainer, metrics)
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


def write_summary(folder: Path, datamodule: CIFAR10DataModule, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
    """Write `run.json`: that the run has finished, what it cost and on what; comparisons read it.

    `seconds`: of training with its validations, over all parts of a resumed run; None without a Timer.
    """
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, pl.callbacks.Timer)), None)
    summary = {
        **metrics,
        "data": datamodule.source.name,
        "synthetic": datamodule.source.synthetic,
        "train_images": len(datamodule.indices["train"]),
        "val_images": len(datamodule.indices["val"]),
        "epochs": trainer.current_epoch,
        "seconds": timer and round(timer.time_elapsed("train"), 1),
        "hardware": hardware(trainer),
        "precision": str(trainer.precision),
        "commit": commit(),
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    aside = folder / "run.json.tmp"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    os.replace(aside, folder / "run.json")


def hardware(trainer: pl.Trainer) -> str:
    """The device that the trainer computes on, in words."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return f"{trainer.num_devices} x {torch.cuda.get_device_name(device)}"
    name = processor() if device.type == "cpu" else device.type.upper()
    return f"{name}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # no Linux, or an ARM processor
        return platform.processor() or platform.machine() or "CPU"


def commit() -> str:
    """The commit of the code that runs, with "+" if files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def hyperparameters(cfg: DictConfig) -> dict[str, object]:
    """The settings that a result can depend on, by dotted key, without those that are null."""
    groups = {"model": cfg.model, "data": cfg.data, "two_phase": cfg.callbacks.get("two_phase") or {}}
    trainer = {key: cfg.trainer[key] for key in ("max_epochs", "precision")}
    settings = OmegaConf.to_container(OmegaConf.create({"seed": cfg.seed, **groups, "trainer": trainer}), resolve=True)
    flat = {"name": cfg.name, "seed": settings.pop("seed")}
    for group, values in settings.items():
        for key, value in values.items():
            if value is not None and key not in ("_target_", "root", "seed", "eval_batch_size"):
                flat[f"{group}.{key}"] = value if isinstance(value, int | float) else str(value)
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
    return Run(path, cfg, datamodule, model)


def newest_run() -> Path:
    """The run under outputs/ whose best checkpoint is the newest."""
    found = sorted(Path("outputs").glob("**/checkpoints/best.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError("no finished run lies under outputs/: train one first (python train.py), or pass run=FOLDER")
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
        enable_progress_bar=sys.stdout.isatty(),
    )
    batches = trainer.predict(run.model, datamodule=run.datamodule, weights_only=True)
    logits, labels = (torch.cat(part).cpu().numpy() for part in zip(*batches, strict=True))
    return logits, labels


def provenance(run: Run, checkpoint: str) -> dict[str, object]:
    """What was evaluated, on what, with what."""
    return {
        "run": str(run.folder),
        "name": run.cfg.name,
        "checkpoint": checkpoint,
        "data": run.datamodule.source.name,
        "synthetic": run.datamodule.source.synthetic,
        "split": "test",
        "seed": run.cfg.seed,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "commit": commit(),
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
