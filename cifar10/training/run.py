"""The steps of a run around training: where it resumes from, what it logs, and what it leaves in its folder."""

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from cifar10.callbacks.timer import TrainingTimer
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.machine import commit, hardware
from cifar10.models.classifier import ImageClassifier
from cifar10.models.weights import read_checkpoint
from cifar10.run_folder import Free, RunFolder, is_free, overrides_of, recipe
from cifar10.shell import shown
from cifar10.sweeps.jobs import NOTES, PLAN
from cifar10.sweeps.plan import read_plan
from cifar10.training import checks
from cifar10.training.cost import training_cost
from cifar10.training.loggers import begin, viewers
from cifar10.untrusted import key_of, read_list

log = logging.getLogger(__name__)


def announce(cfg: DictConfig, model: ImageClassifier, datamodule: CIFAR10DataModule, trainer: pl.Trainer) -> None:
    """Log what is trained, on what, where and how; from here on only rank 0 logs."""
    if not trainer.is_global_zero:
        logging.disable(logging.INFO)
    datamodule.setup("fit")
    if cfg.resume and trainer.is_global_zero:
        folder = RunFolder(cfg.output_dir)
        folder.summary.unlink(missing_ok=True)  # a resumed run is unfinished again
        folder.change_settings(cfg, overrides_of(HydraConfig.get()))
    train, val = (len(datamodule.indices[name]) for name in ("train", "val"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if trainer.is_global_zero:
        checks.warn_of_no_recipe()
    if datamodule.source.synthetic:
        log.warning("DRAWN IMAGES, NOT CIFAR-10: none of this run's figures says anything about CIFAR-10")
    log.info(f"{cfg.name}: {parameters:,} parameters, input {model.preprocessing.image_size} px")
    log.info(f"{datamodule.source.name}: {train:,} images to train on, {f'{val:,}' if val else 'none'} to validate on")
    compiled = ", compiled" if model.compile_mode else ", frozen part compiled" if model.compile_frozen else ""
    log.info(
        f"{hardware(trainer)}, precision {trainer.precision}{compiled}; torch {torch.__version__}, commit {commit()}"
    )
    two_phase = cfg.callbacks.get("two_phase")
    caching = cfg.callbacks.get("feature_caching")
    if two_phase and not (caching and caching.get("views")) and trainer.strategy.root_device.type == "cpu":
        log.info(
            "this is slow on a CPU; callbacks.feature_caching.views=2 is faster, and for CIFAR-10 experiment=laptop"
            " model=efficientnet_b0"
        )
    log.info(f"results go to {shown(cfg.output_dir)}")
    if trainer.is_global_zero:
        begin(trainer.loggers, hyperparameters(cfg))


def restore_point(cfg: DictConfig, trainer: Any) -> Path | None:
    """The checkpoint that a run resumes from; None if it starts, or starts over because there was none yet.

    Logs how far the run has got. Raises UserError if the checkpoint cannot be read.
    """
    if not cfg.resume:
        return None
    run = RunFolder(cfg.resume)
    file, step = run.last, -1
    if not file.exists() and run.best.exists():
        log.info(f"{shown(file)} does not exist: resuming from best.ckpt")
        file = run.best
    if file.exists():
        step = read_position(cfg, file)
    else:
        log.info("no checkpoint had been saved yet: the run starts over")
    for logger in trainer.loggers:
        if trainer.is_global_zero and hasattr(logger, "go_on_after"):
            logger.go_on_after(step)
    return file if step >= 0 else None


def read_position(cfg: DictConfig, file: Path) -> int:
    """Log how far a checkpoint has got; returns its optimizer steps. UserError if it cannot be read."""
    try:
        checkpoint = read_checkpoint(file)
        step, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
        epochs = loop["epoch_progress"]["current"]["processed"]
        batches = loop["epoch_loop.batch_progress"]["current"]["ready"]
    except (UserError, KeyError, TypeError) as error:
        best = RunFolder(cfg.resume).best
        way = "; delete it to resume from best.ckpt" if file != best and best.exists() else ""
        reason = error if isinstance(error, UserError) else f"{file}: not a checkpoint to resume from"
        raise UserError(f"{reason}{way}") from error
    left = "" if loop["epoch_progress"]["current"]["ready"] == epochs else f" and {batches} batches of the next"
    log.info(f"{shown(file)}: {epochs} epoch{'s' * (epochs != 1)}{left} done, {step} steps")
    if checkpoint.get("should_stop", False):
        log.info("nothing left to train: the run was ended by callbacks.*.patience or trainer.max_steps")
    elif epochs > cfg.trainer.max_epochs:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: the run has already trained for {epochs} epochs")
    elif epochs == cfg.trainer.max_epochs:
        log.info(f"nothing left to train; set trainer.max_epochs={epochs + 1} or more to continue")
    return step


def keep_nothing(cfg: DictConfig) -> None:
    """Prepare `trainer.fast_dev_run`, Lightning's trial run of one training and one validation batch."""
    log.info(f"trainer.fast_dev_run={cfg.trainer.fast_dev_run}: a quick trial run; nothing is kept")
    for name in ("checkpoint", "epoch_log"):
        cfg.callbacks[name] = None
    OmegaConf.update(cfg, "logger", None, force_add=True)
    OmegaConf.update(cfg, "trainer.enable_checkpointing", False, force_add=True)


def training_seconds(trainer: Any) -> float | None:
    """The time in `fit`, over all parts of a resumed run; None without a Timer.

    Call before a checkpoint is loaded for validation: Lightning then restores the Timer's state as well.
    """
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, TrainingTimer)), None)
    return timer and round(timer.training_seconds, 1)


def validate_best(model: ImageClassifier, datamodule: CIFAR10DataModule, trainer: Any) -> dict[str, float]:
    """Validation metrics of best.ckpt, whose weights the model then has; none without validation images.

    Loggers, which have them, get nothing.
    """
    loggers, trainer.loggers = trainer.loggers, []
    best = trainer.checkpoint_callback.best_model_path
    trainer.validate(model, datamodule, ckpt_path=best, weights_only=True, verbose=False)
    trainer.loggers = loggers
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def conclude(
    cfg: DictConfig,
    model: ImageClassifier,
    datamodule: CIFAR10DataModule,
    trainer: pl.Trainer,
    metrics: dict[str, float],
    seconds: float | None,
) -> None:
    """Log settings and results, write `run.json`, say what came out and what to do next.

    metrics: of best.ckpt on validation. seconds: of training, validation included. The first process does it alone: it
    may take longer than the others would wait.
    """
    if not trainer.is_global_zero:
        return
    accuracy_first = sorted(metrics, key=lambda name: name != "val/acc")  # as HPARAMS shows them
    best = {f"best/{name}": metrics[name] for name in accuracy_first}
    views = viewers(trainer)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and best:  # its HPARAMS tab; a resumed run takes this step back
            logger.log_hyperparams(columns(cfg), best, trainer.global_step + 1)
        elif best:
            logger.log_metrics(best, trainer.global_step + 1)
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
    run = RunFolder(cfg.output_dir)
    run.write_summary(metrics | {"seconds": seconds} | summarise(cfg, model, datamodule, trainer))
    validation = "  validation            none, as data.val_size=0 left no images for it; best.ckpt is the last epoch\n"
    if metrics:
        validation = f"  validation accuracy   {metrics['val/acc']:.4f}\n"
        validation += f"  validation loss       {metrics['val/loss']:.4f}\n"
    log.info(
        "done\n"
        f"  data                  {datamodule.source.name}\n"
        f"{validation}"
        f"  run                   {run}"
        + ("" if HydraConfig.get().mode == RunMode.MULTIRUN else f"\n  test it               {run.evaluate_command}")
        + "".join(f"\n  curves                {viewer}" for viewer in views)
    )


def summarise(cfg: DictConfig, model: ImageClassifier, datamodule: CIFAR10DataModule, trainer: Any) -> dict:
    """What a run was trained on, with what, and what it cost; comparisons read it."""
    train, val = (len(datamodule.indices[name]) for name in ("train", "val"))
    rows = RunFolder(cfg.output_dir).read_metrics()
    return {
        "data": datamodule.source.name,
        "synthetic": datamodule.source.synthetic,
        "train_images": train,
        "val_images": val,
        "class_counts": {stage: datamodule.class_counts(stage).tolist() for stage in ("train", "val")},
        "epochs": len(rows) or trainer.fit_loop.epoch_progress.current.processed,
        "cost": training_cost(model, trainer.callbacks, rows, train, val),
        "hardware": hardware(trainer),
        "precision": str(trainer.precision),
        "commit": commit(),
        "weights_sha256": getattr(model, "weights_sha256", None),
        "versions": {"torch": torch.__version__, "pytorch-lightning": version("pytorch-lightning")},
        "watchers": watchers(cfg),
    }


def watchers(cfg: DictConfig) -> list[str]:
    """The keys of callbacks whose class sets `changes_training = False`."""
    nodes = {key: node for key, node in cfg.callbacks.items() if node is not None}
    return [key for key, node in nodes.items() if getattr(get_class(node._target_), "changes_training", True) is False]


def hyperparameters(cfg: DictConfig) -> dict[str, object]:
    """The settings that a result can depend on, by dotted key, without those that are null."""
    settings = {"name": cfg.name, "seed": cfg.seed} | recipe(cfg, watchers(cfg), resolve=True)
    return {
        key: value if isinstance(value, int | float) else str(value)
        for key, value in settings.items()
        if not key.endswith("_target_")
    }


def columns(cfg: DictConfig) -> dict[str, object]:
    """What TensorBoard's HPARAMS tab shows of a run: what its sweep varies and the seed, or all that was given."""
    hydra, run = HydraConfig.get(), RunFolder(cfg.output_dir)
    given = read_list(run.overrides) if run.overrides.is_file() else overrides_of(hydra)
    texts = {key_of(override): override.partition("=")[2] for override in given}
    if hydra.mode == RunMode.MULTIRUN:
        varied = read_plan(Path(hydra.sweep.dir) / NOTES / PLAN).settings
        texts = {key: text for key, text in texts.items() if key in varied}
    found = {}
    for key, text in texts.items():
        if not is_free(key, Free.RECIPE) and key.partition(".")[0] != "hydra":
            value = OmegaConf.select(cfg, key)
            found[key] = value if isinstance(value, int | float | str) else text
    name = {} if hydra.mode == RunMode.MULTIRUN else {"name": cfg.name}
    return found | {"seed": cfg.seed} | name
