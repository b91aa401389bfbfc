"""Settings that neither Hydra nor the class rejects: Lightning accepts them silently, or fails in mid-training."""

import contextlib
import logging
import math
import tempfile
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cifar10.commandline.instantiate import matches
from cifar10.errors import UserError, cause_of, one_line
from cifar10.metric_names import METRICS
from cifar10.processes import is_worker
from cifar10.run_folder import RunFolder
from cifar10.training.loggers import check_packages, logger_nodes

log = logging.getLogger(__name__)

LEAST = {  # the lowest values of whole-number settings, where given
    "trainer.max_epochs": 1,
    "trainer.min_epochs": 0,
    "trainer.min_steps": 0,
    "trainer.num_nodes": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.num_sanity_val_steps": -1,
    "callbacks.early_stopping.patience": 1,
}


def check_settings(cfg: DictConfig) -> None:
    """UserError for the first setting that cannot work."""
    check_sections(cfg)
    seed, name = cfg.seed, cfg.name
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: must be a whole number from 0 to {2**32 - 1}")
    if not (is_whole(name) or (isinstance(name, str) and name.strip() and name.isprintable() and "/" not in name)):
        raise UserError(f"name={one_line(name)}: must be the name of a folder, as text without a /")
    leads = HydraConfig.initialized()  # the first of several processes, which hands its settings on
    if leads and str(cfg.output_dir) != HydraConfig.get().runtime.output_dir:  # where Hydra keeps the settings
        raise UserError(
            f"output_dir={one_line(cfg.output_dir)}: is set by Hydra; name the folder with hydra.run.dir=FOLDER"
        )
    for key, least in LEAST.items():
        section, _, setting = key.rpartition(".")
        value = section_of(cfg, section).get(setting)
        if value is not None and (not is_whole(value) or value < least):
            raise UserError(f"{key}={one_line(value)}: must be a whole number from {least} up")
    if cfg.trainer.get("max_epochs") is None:
        raise UserError("trainer.max_epochs: must be given, a whole number from 1 up")
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{key}: must be given, {key}=VALUE; docs/configuration.md says what it is")
    check_validation(cfg.trainer)
    dirpath, place = cfg.callbacks.checkpoint.get("dirpath"), RunFolder(cfg.output_dir).checkpoints
    if isinstance(dirpath, str) and Path(dirpath).expanduser().absolute() != place.absolute():
        raise UserError(
            f"callbacks.checkpoint.dirpath={one_line(dirpath)}: checkpoints belong in the run's folder; name that with"
            " hydra.run.dir=FOLDER"
        )
    if cfg.data.get("sampler") == cfg.model.get("class_weights") == "balanced":
        raise UserError("model.class_weights=balanced: data.sampler=balanced does the same; set either to null")
    for name, callback in cfg.callbacks.items():
        monitor = callback and callback.get("monitor")
        if monitor and monitor not in METRICS:
            raise UserError(f"callbacks.{name}.monitor={monitor}: no such metric; available: {', '.join(METRICS)}")
        watches = monitor and monitor.startswith("val/") and callback.get("patience") is not None
        if watches and cfg.data.get("val_size") == 0:
            key = f"callbacks.{name}" + (".patience" if name == "two_phase" else "")
            raise UserError(
                f"{key}: waits for {monitor}, and data.val_size=0 leaves no images to validate on; set {key}=null"
            )
    if not matches(tags := cfg.get("tags", OmegaConf.create([])), list[str]):
        raise UserError(f"tags={one_line(tags)}: must be a list of text, such as tags=[baseline]")
    check_packages(cfg)
    if not is_worker:  # rank 0 writes for all, and two checks of a folder at once would remove it under each other
        check_folders(cfg)


def check_sections(cfg: DictConfig) -> None:
    """UserError for a value in place of a section, and for a missing section that every run needs."""
    for section in ("data", "model", "trainer", "callbacks"):
        if not isinstance(cfg.get(section), DictConfig):
            raise UserError(f"{section}={cfg.get(section)}: is a section; set {section}.KEY=VALUE, see --cfg job")
    for name in ("callbacks", "logger"):
        if name in cfg.trainer:
            raise UserError(f"trainer.{name}: is built from the section {name}; set {name}.KEY=VALUE instead")
    optional = {"logger": cfg.get("logger")} | {f"callbacks.{name}": cfg.callbacks[name] for name in cfg.callbacks}
    if isinstance(cfg.get("logger"), DictConfig):
        optional |= logger_nodes(cfg)
    for key, value in optional.items():
        if value is not None and not isinstance(value, DictConfig):
            raise UserError(f"{key}={one_line(value)}: is a section; set {key}.KEY=VALUE, or {key}=null for none")
    if cfg.callbacks.get("checkpoint") is None:
        raise UserError("callbacks.checkpoint: is needed, because the best checkpoint is a run's result")


def check_validation(trainer: DictConfig) -> None:
    """UserError if nothing would be trained, or nothing validated, so that there is no best checkpoint."""
    if trainer.get("barebones"):
        instead = "for less output set trainer.enable_progress_bar=false logger=null"
        raise UserError(f"trainer.barebones: leaves no checkpoint, which is a run's result; {instead}")
    for name in ("limit_train_batches", "limit_val_batches"):
        value = trainer.get(name)
        if value is not None and (not is_number(value) or not value > 0 or (isinstance(value, float) and value > 1)):
            raise UserError(f"trainer.{name}={value}: must be a number of batches from 1 up, or a fraction up to 1.0")
    steps = trainer.get("max_steps", -1)
    if not is_whole(steps) or (steps < 1 and steps != -1):
        raise UserError(f"trainer.max_steps={steps}: must be a whole number from 1 up, or -1 for no limit")
    every = trainer.get("check_val_every_n_epoch") or 1
    if every > trainer.max_epochs:
        raise UserError(f"trainer.check_val_every_n_epoch={every}: never validates in max_epochs={trainer.max_epochs}")
    interval = trainer.get("val_check_interval")
    if interval is not None and not (is_number(interval) and interval > 0):
        raise UserError(f"trainer.val_check_interval={interval}: must be a number of batches, or a fraction up to 1.0")
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not (is_number(clip) and clip >= 0):
        raise UserError(f"trainer.gradient_clip_val={clip}: must be a number from 0 up; 0 or null is off")


def check_folders(cfg: DictConfig) -> None:
    """UserError for a folder that cannot be written, before a run is spent on it."""
    folders = {"output_dir": cfg.output_dir, "trainer.default_root_dir": cfg.trainer.get("default_root_dir")}
    folders |= {f"{key}.save_dir": node.get("save_dir") for key, node in logger_nodes(cfg).items()}
    for key, folder in folders.items():
        if isinstance(folder, str):
            check_folder(key, Path(folder).expanduser())
    path = section_of(cfg, "callbacks.epoch_log").get("path")
    if isinstance(path, str):
        check_folder("callbacks.epoch_log.path", Path(path).expanduser().parent)
        if Path(path).is_dir():
            raise UserError(f"callbacks.epoch_log.path={path}: is a folder; name a file in it")


def check_folder(key: str, folder: Path) -> None:
    """UserError unless a file can be written there; a folder made for the check is removed again."""
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{key}={one_line(folder)}: cannot be written ({cause_of(error)}); name another folder"
        ) from error
    finally:
        for made in absent:
            with contextlib.suppress(OSError):
                made.rmdir()


def warn_of_no_recipe() -> None:
    """Log a warning if the experiment has recipes, but none for this model."""
    choices = HydraConfig.get().runtime.choices
    experiment, model = choices.get("experiment"), choices.get("model")
    recipes = GlobalHydra.instance().config_loader().get_group_options("recipe")
    others = any(name.startswith(f"{experiment}_") for name in recipes)
    if others and choices.get("recipe", f"{experiment}_{model}") not in recipes:
        log.warning(
            f"experiment={experiment} has no recipe for model={model}, which trains as it is; to give it one, write"
            f" conf/recipe/{experiment}_{model}.yaml"
        )


def section_of(cfg: DictConfig, path: str) -> DictConfig | dict:
    """A section by its dotted name; an empty one if there is none."""
    section: object = cfg
    for name in path.split("."):
        section = section.get(name) if isinstance(section, DictConfig) else None
    return section if isinstance(section, DictConfig) else {}


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def check_devices(accelerator: str, devices: object) -> None:
    """UserError for devices that do not exist."""
    gpus = torch.cuda.device_count()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and gpus == 0)
    if on_cpu and devices != "auto" and not (isinstance(devices, int) and is_whole(devices) and devices >= 1):
        raise UserError(f"trainer.devices={devices}: must be a whole number of processes from 1 up on a CPU")
    wanted = len(devices) if isinstance(devices, list | tuple) else devices
    if isinstance(wanted, int) and wanted > max(gpus, 1) and accelerator in ("auto", "gpu", "cuda"):
        way = f"use trainer.devices={max(gpus, 1)}"
        if gpus == 0:
            way += ", or trainer.accelerator=cpu for several processes on the CPU"
        raise UserError(f"trainer.devices={wanted}: this machine has {gpus} GPUs; {way}")
    if accelerator in ("gpu", "cuda") and gpus == 0:
        raise UserError(f"trainer.accelerator={accelerator}: this machine has no GPU; use trainer.accelerator=auto")
