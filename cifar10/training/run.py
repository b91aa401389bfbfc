"""What a run says of itself: to who watches it, and in its folder."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.files import atomic_write, locked, remove_leftovers
from cifar10.machine import commit, hardware
from cifar10.models.classifier import ImageClassifier
from cifar10.models.weights import read_checkpoint

log = logging.getLogger(__name__)

SUMMARY = "run.json"  # in a finished run's folder


def announce(cfg: DictConfig, model: ImageClassifier, datamodule: CIFAR10DataModule, trainer: pl.Trainer) -> None:
    """Say what is trained, on what, where and how; from here on the first process speaks for all."""
    if not trainer.is_global_zero:
        logging.disable(logging.INFO)
    else:
        (Path(cfg.output_dir) / SUMMARY).unlink(missing_ok=True)  # a resumed run has not finished any more
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


@contextlib.contextmanager
def own_folder(cfg: DictConfig, trainer: pl.Trainer) -> Iterator[None]:
    """Keep the run's folder for this process and its helpers; UserError if another one trains in it."""
    if not trainer.is_global_zero:
        yield
        return
    folder = Path(cfg.output_dir)
    busy = f"{os.path.relpath(folder)}: another process trains in this folder; wait for it, or stop it first"
    with locked(folder / ".lock", busy):
        remove_leftovers(folder)
        yield


def restore_point(cfg: DictConfig, trainer: pl.Trainer) -> Path | None:
    """The checkpoint that a run goes on from; None if it begins, or begins again because there was none yet.

    Says where the run stands. Raises UserError if the checkpoint cannot be read.
    """
    if not cfg.resume:
        return None
    folder = Path(os.path.relpath(Path(cfg.resume) / "checkpoints"))
    file, step = folder / "last.ckpt", -1
    if not file.exists() and (folder / "best.ckpt").exists():
        log.info(f"{file} is not there: going on from best.ckpt")
        file = folder / "best.ckpt"
    if not file.exists():
        log.info("no checkpoint had been saved yet: the run begins again")
    else:
        try:
            checkpoint = read_checkpoint(file)
            step, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
            epochs = loop["epoch_progress"]["current"]["processed"]
            batches = loop["epoch_loop.batch_progress"]["current"]["ready"]
        except (UserError, KeyError, TypeError) as error:
            way = (
                "; delete it to go on from best.ckpt"
                if file.name == "last.ckpt" and (folder / "best.ckpt").exists()
                else ""
            )
            reason = error if isinstance(error, UserError) else f"{file}: not a checkpoint to go on from"
            raise UserError(f"{reason}{way}") from error
        left = "" if loop["epoch_progress"]["current"]["ready"] == epochs else f" and {batches} batches of the next"
        log.info(f"{file}: {epochs} epoch{'s' * (epochs != 1)}{left} done, {step} steps")
        if checkpoint.get("should_stop", False):
            log.info("nothing left to train: it had come to its own end, by callbacks.*.patience or trainer.max_steps")
        elif epochs >= cfg.trainer.max_epochs:
            log.info(f"nothing left to train; trainer.max_epochs={epochs + 1} or more goes on")
    if trainer.is_global_zero and hasattr(trainer.logger, "go_on_after"):
        trainer.logger.go_on_after(step)
    return file if step >= 0 else None


def training_seconds(trainer: pl.Trainer) -> float | None:
    """The time in `fit`, over all parts of a resumed run; None without a Timer.

    To be asked before a checkpoint is loaded for validation: Lightning then restores the Timer's state as well.
    """
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, pl.callbacks.Timer)), None)
    return timer and round(timer.time_elapsed("train"), 1)


def conclude(cfg: DictConfig, datamodule: CIFAR10DataModule, trainer: pl.Trainer, seconds: float | None) -> None:
    """Put settings and result into TensorBoard's HPARAMS tab and `run.json`, say what came out and what to do next."""
    metrics = {name: float(trainer.callback_metrics[name]) for name in ("val/acc", "val/loss")}
    if trainer.logger is not None:
        best = {f"best/{name}": value for name, value in metrics.items()}
        step = trainer.global_step + 1  # so that a run that goes on takes it back
        trainer.logger.log_hyperparams(hyperparameters(cfg), best, step)
        trainer.logger.finalize("success")
    if trainer.is_global_zero:
        write_summary(Path(cfg.output_dir), datamodule, trainer, metrics, seconds)
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


def write_summary(
    folder: Path,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer,
    metrics: dict[str, float],
    seconds: float | None,
) -> None:
    """Write `run.json`: that the run has finished, what it cost and on what; comparisons read it.

    seconds: of training with its validations.
    """
    summary = {
        **metrics,
        "data": datamodule.source.name,
        "synthetic": datamodule.source.synthetic,
        "train_images": len(datamodule.indices["train"]),
        "val_images": len(datamodule.indices["val"]),
        "epochs": trainer.fit_loop.epoch_progress.current.processed,
        "seconds": seconds,
        "hardware": hardware(trainer),
        "precision": str(trainer.precision),
        "commit": commit(),
        "versions": {"torch": torch.__version__, "pytorch-lightning": pl.__version__},
    }
    with atomic_write(folder / SUMMARY, "w") as file:
        file.write(json.dumps(summary, indent=2) + "\n")


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
