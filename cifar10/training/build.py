"""From a configuration to the objects of a run: data module, model, trainer."""

import logging
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ProgressBar as AnyProgressBar

from cifar10.callbacks.averaging import Averaging
from cifar10.callbacks.checkpoint import AtomicCheckpointIO
from cifar10.callbacks.progress_bar import ProgressBar
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.commandline.instantiate import check_values, make, named
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.metric_names import mode_of
from cifar10.models.classifier import ImageClassifier
from cifar10.models.networks.build import find_network
from cifar10.models.sharding import Sharding
from cifar10.processes import check_processes, is_worker, started_here
from cifar10.training.checks import check_devices
from cifar10.training.loggers import build_loggers

log = logging.getLogger(__name__)

COMPILE = (False, True, "auto", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
OURS = ("compile", "checkpoint_every_n_steps", "sync_batchnorm")  # of the trainer's section, but not for Lightning


def build_data(cfg: DictConfig) -> CIFAR10DataModule:
    """The data module, with its files present and verified, so that the class names are known."""
    datamodule = make("data", cfg.data, CIFAR10DataModule)
    views = (cfg.callbacks.get("feature_caching") or {}).get("views")
    if isinstance(views, int) and views > 0:  # before anything is written
        datamodule.augmentation.check_views(views)
    if not cfg.trainer.get("fast_dev_run"):
        datamodule.keep_split(Path(cfg.output_dir), write=not is_worker)
    datamodule.prepare_data()
    return datamodule


def build_model(cfg: DictConfig, datamodule: CIFAR10DataModule) -> ImageClassifier:
    """The model for the data's classes."""
    if len(datamodule.class_names) < 2:
        raise UserError(f"{datamodule.source.name}: only one class; classification needs at least two")
    if isinstance(network := cfg.model.get("network"), DictConfig):  # which the model itself builds, and adds to
        try:
            target = find_network(network.get("_target_"))
        except ValueError as error:
            raise UserError(named("model", cfg.model, error)) from error
        check_values("model.network", target, network, given=("num_classes", "image_size"))
    class_names = list(datamodule.class_names)
    model = make("model", cfg.model, ImageClassifier, class_names=class_names, _recursive_=False)
    mode = compile_mode(cfg.trainer.get("compile", False), cfg.trainer.get("accelerator", "auto"))
    model.compile_frozen = mode is not None
    model.sync_batchnorm = cfg.trainer.get("sync_batchnorm", True)
    datamodule.use_preprocessing(model.preprocessing)
    if mode is not None and mode != "frozen":
        model.compile_network(mode)
    return model


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with its callbacks and loggers, checked against the machine."""
    settings: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    settings.pop("compile", None)
    accelerator = settings.get("accelerator", "auto")
    devices = settings["devices"] = resolve_devices(settings.get("devices", 1), accelerator)
    check_devices(accelerator, devices)
    several = settings.get("num_nodes", 1) > 1 or (len(devices) if isinstance(devices, list) else devices) != 1
    callbacks = [
        make(f"callbacks.{name}", node, pl.Callback) for name, node in cfg.callbacks.items() if node is not None
    ]
    check_modes(cfg)
    has_bar = any(isinstance(callback, AnyProgressBar) for callback in callbacks)
    if settings.get("enable_progress_bar", True) is True:  # in a file, one line per epoch says it all
        settings["enable_progress_bar"] = sys.stdout.isatty() or has_bar
    if settings["enable_progress_bar"] and not has_bar:
        callbacks.insert(0, ProgressBar())
    if settings.get("benchmark") is None:
        settings["benchmark"] = not settings.get("deterministic")
    strategy = resolve_strategy(settings.pop("strategy", "auto"), several, callbacks)
    settings["precision"] = resolve_precision(settings.get("precision", "auto"), accelerator, strategy)
    if strategy == "fsdp":
        count = (len(devices) if isinstance(devices, list) else devices) * settings.get("num_nodes", 1)
        strategy = build_sharding(count, cfg, callbacks)
    node = OmegaConf.create({key: value for key, value in settings.items() if key not in OURS})
    given = {
        "callbacks": callbacks,
        "logger": build_loggers(cfg),
        "strategy": strategy,
        "plugins": [AtomicCheckpointIO()],
    }
    trainer = make("trainer", node, pl.Trainer, **given)
    check_processes(trainer.num_devices, trainer.num_nodes)
    for key in ("batch_size", "eval_batch_size"):  # with two, none is left without an image in smaller batches
        if trainer.world_size > 1 and cfg.data[key] < 2 * trainer.world_size:
            raise UserError(
                f"data.{key}={cfg.data[key]}: fewer than two images for each of {trainer.world_size} processes;"
                f" set {2 * trainer.world_size} or more, or use fewer processes"
            )
    return trainer


def check_modes(cfg: DictConfig) -> None:
    """UserError for a callback that would keep the worst value of its metric."""
    for name, node in cfg.callbacks.items():
        monitor, mode = (node.get(key) if node is not None else None for key in ("monitor", "mode"))
        if isinstance(monitor, str) and mode in ("min", "max") and mode_of(monitor) not in (None, mode):
            better = "higher" if mode == "min" else "lower"
            raise UserError(
                f"callbacks.{name}.mode={mode}: {monitor} is better when it is {better}; set mode={mode_of(monitor)}"
            )


def check_interval(trainer: pl.Trainer, datamodule: CIFAR10DataModule) -> None:
    """UserError for a validation that no epoch reaches; the data must be set up."""
    batches = -(-len(datamodule.indices["train"]) // datamodule.batch_size)
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    interval = trainer.val_check_interval
    if isinstance(interval, int) and interval > batches and trainer.check_val_every_n_epoch is not None:
        raise UserError(f"trainer.val_check_interval={interval}: an epoch has only {batches} batches")


def resolve_devices(devices: object, accelerator: str) -> object:
    """ "auto" as the number of processes that torchrun or srun has started on this host, or of its GPUs."""
    if devices != "auto":
        return devices
    return started_here() or max(1, 0 if accelerator == "cpu" else torch.cuda.device_count())


def resolve_strategy(strategy: str, several: bool, callbacks: list[pl.Callback]) -> str:
    """ "auto", but for two phases on several devices a DDP that lets the set of trainable parameters change."""
    two_phases = any(isinstance(callback, TwoPhaseFineTuning) for callback in callbacks)
    return "ddp_find_unused_parameters_true" if strategy == "auto" and two_phases and several else strategy


def build_sharding(processes: int, cfg: DictConfig, callbacks: list[pl.Callback]) -> Sharding:
    """The strategy of trainer.strategy=fsdp; UserError for what does not work with it."""
    if (cfg.callbacks.get("feature_caching") or {}).get("views"):
        raise UserError("callbacks.feature_caching.views: must be 0 with trainer.strategy=fsdp, or use trainer=ddp")
    if cfg.model.get("optimizer") == "muon":
        raise UserError("model.optimizer=muon: steps whole filters, which trainer=fsdp splits; use trainer=ddp")
    if any(isinstance(callback, Averaging) for callback in callbacks):
        raise UserError("trainer.strategy=fsdp: an average needs whole weights; use trainer=ddp, or average=null")
    return Sharding(processes)


def compile_mode(setting: Any, accelerator: str) -> str | None:
    """The mode of torch.compile, "frozen" for only the parts that never learn, None for nothing.

    "auto" is what was measured to help (tests/benchmarks/README.md): everything on a GPU, the frozen part on a CPU
    with a compiler. UserError for an unknown setting, and on a machine without a compiler.
    """
    name, gpu = f"trainer.compile={str(setting).lower()}", accelerator != "cpu" and torch.cuda.is_available()
    if setting not in COMPILE:
        raise UserError(f"{name}: must be one of {', '.join(map(str, COMPILE)).lower()}")
    ready = can_compile(gpu)
    if setting is False or (setting == "auto" and not ready):
        return None
    if not ready:
        needs = "a C compiler and Python's headers" if gpu else "a C++ compiler"
        raise UserError(f"{name}: needs {needs} (Debian: apt-get install g++ python3-dev); or set it to false")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no GPU
    if setting == "auto":
        return "default" if gpu else "frozen"
    return "default" if setting is True else setting


def can_compile(gpu: bool) -> bool:
    """Whether what torch.compile needs is there: for code of the CPU; on a GPU for a module that Triton builds."""
    names = (os.environ.get("CC", "gcc"), "clang") if gpu else (os.environ.get("CXX", "g++"), "clang++")
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # where Triton looks
    headers = Path(sysconfig.get_paths(scheme)["include"], "Python.h")
    return any(map(shutil.which, names)) and (headers.is_file() or not gpu)


def resolve_precision(precision: str | int, accelerator: str, strategy: str = "auto") -> str | int:
    """ "auto" as bf16-mixed on a GPU that supports it, 16-mixed on other GPUs, and fp32 on the CPU.

    Sharding knows no 16-mixed: fp32 in its place.

    bf16 autocast is ten times slower than fp32 on CPUs without native support.
    """
    if precision != "auto":
        return precision
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true" if strategy == "fsdp" else "16-mixed"
