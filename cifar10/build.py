"""From a configuration to the objects of a run: data module, model, trainer."""

import inspect
import logging
import os
import shutil
import sys
import types
import typing
import warnings
from collections.abc import Collection

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cifar10.callbacks.checkpoint import WholeFiles
from cifar10.callbacks.progress_bar import ProgressBar
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.models.classifier import ImageClassifier

log = logging.getLogger(__name__)

# Lightning's advice on things that are so on purpose
for advice in (
    "modules in eval mode",
    "smaller than the logging interval",
    "exists and is not empty",
    "LeafSpec",
    "sync_dist=True",  # what is logged has been summed over the processes
):
    warnings.filterwarnings("ignore", message=f".*{advice}.*")
for library in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
    logging.getLogger(library).setLevel(logging.WARNING)


COMPILE = (False, True, "auto", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
OURS = ("compile", "checkpoint_every_n_steps", "sync_batchnorm")  # of the trainer's section, but not for Lightning
METRICS = ("train/loss", "train/acc", "val/loss", "val/acc")


def build_data(cfg: DictConfig) -> CIFAR10DataModule:
    """The data module, its files there and verified, so that the class names are known."""
    datamodule = make("data", cfg.data)
    views = (cfg.callbacks.get("two_phase") or {}).get("cache_views")
    if isinstance(views, int) and views > 0:
        datamodule.check_views(views)
    datamodule.prepare_data()
    return datamodule


def build_model(cfg: DictConfig, datamodule: CIFAR10DataModule) -> ImageClassifier:
    """The model for the data's classes."""
    if len(datamodule.class_names) < 2:
        raise UserError(f"{datamodule.source.name}: one class only; there is nothing to tell apart")
    model = make("model", cfg.model, class_names=list(datamodule.class_names))
    mode = compile_mode(cfg.trainer.compile)
    model.compile_frozen = mode is not None
    model.sync_batchnorm = cfg.trainer.get("sync_batchnorm", True)
    if mode is not None and mode != "frozen":
        model.compile_network(mode)
    return model


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with its callbacks and logger, checked against the machine."""
    trainer, settings = cfg.trainer, OmegaConf.to_container(cfg.trainer, resolve=True)
    check_devices(trainer.accelerator, trainer.devices)
    callbacks = [make(f"callbacks.{name}", node) for name, node in cfg.callbacks.items() if node is not None]
    show_bar = trainer.enable_progress_bar and sys.stdout.isatty()  # in a file, the line an epoch says it all
    if show_bar:
        callbacks.insert(0, ProgressBar())
    built = make(
        "trainer",
        OmegaConf.create({key: value for key, value in settings.items() if key not in OURS}),
        enable_progress_bar=show_bar,
        benchmark=not trainer.deterministic if trainer.benchmark is None else trainer.benchmark,
        precision=resolve_precision(trainer.precision, trainer.accelerator),
        strategy=resolve_strategy(trainer.strategy, trainer.devices, callbacks),
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=make("logger", cfg.logger) if cfg.logger is not None else False,
    )
    for key in ("batch_size", "eval_batch_size"):  # two leave none without an image in the smaller batches
        if built.world_size > 1 and cfg.data[key] < 2 * built.world_size:
            raise UserError(
                f"data.{key}={cfg.data[key]}: less than two images for each of {built.world_size} processes;"
                f" {2 * built.world_size} or more, or fewer processes"
            )
    return built


def resolve_strategy(strategy: str, devices: object, callbacks: list[pl.Callback]) -> str:
    """ "auto", but for two phases on several devices a DDP that allows the set of learning parameters to change."""
    two_phases = any(isinstance(callback, TwoPhaseFineTuning) for callback in callbacks)
    return "ddp_find_unused_parameters_true" if strategy == "auto" and two_phases and devices != 1 else strategy


def compile_mode(setting: object) -> str | None:
    """The mode of torch.compile, "frozen" for the parts that never learn alone, None for nothing.

    "auto" is what was measured to help (tests/benchmarks/README.md): everything on a GPU, the frozen part on a CPU
    with a compiler. UserError for a setting that there is not, and for a machine without a compiler.
    """
    name, gpu = f"trainer.compile={str(setting).lower()}", torch.cuda.is_available()
    if setting not in COMPILE:
        raise UserError(f"{name}: must be one of {', '.join(map(str, COMPILE)).lower()}")
    ready = gpu or any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "clang++"))
    if setting is False or (setting == "auto" and not ready):
        return None
    if not ready:
        raise UserError(f"{name}: needs a C++ compiler (Debian: apt-get install g++), or set false")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no GPU is known
    if setting == "auto":
        return "default" if gpu else "frozen"
    return "default" if setting is True else setting


def make(key: str, node: DictConfig, **given: object) -> object:
    """Instantiate a configuration node, UserError for a key or value that its class does not take."""
    check_values(key, get_class(node._target_), node, given)
    try:
        return instantiate(node, **given, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, MisconfigurationException | ValueError | RuntimeError):
            raise UserError(f"{key}: {' '.join(str(cause).split())}") from error
        raise cause from None  # a bug: its own traceback


def check_values(key: str, target: type, node: DictConfig, given: Collection[str] = ()) -> None:
    """UserError for a key or a value of a section that the constructor of `target` does not take."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__)
    for name, value in node.items():
        if str(name).startswith("_"):
            continue
        if name not in parameters:
            known = ", ".join(parameter for parameter in parameters if parameter not in given)
            raise UserError(f"{key}.{name}: {target.__name__} has no such setting; it has: {known}")
        if name not in given and not matches(value, hints.get(name, object)):
            raise UserError(f"{key}.{name}={value}: must be {describe(hints[name])}")


def matches(value: object, hint: object) -> bool:
    """Whether a configuration value is of a type; true for every type that configurations cannot spell."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(matches(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) in (list, tuple):
        return isinstance(value, ListConfig) and all(matches(item, typing.get_args(hint)[0]) for item in value)
    if hint in (bool, str, type(None)):
        return value is None if hint is type(None) else isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return True


def describe(hint: object) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    options = typing.get_args(hint) or (hint,)
    return " or ".join(words.get(option, str(option)) for option in options)


def check_settings(cfg: DictConfig) -> None:
    """UserError for what no class of the configuration checks itself."""
    for section in ("data", "model", "trainer", "callbacks"):
        if not isinstance(cfg.get(section), DictConfig):
            raise UserError(f"{section}={cfg.get(section)}: is a section; set {section}.KEY=VALUE, see --cfg job")
    seed, epochs = cfg.seed, cfg.trainer.max_epochs
    if not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"trainer.max_epochs={epochs}: must be a whole number from 1 up")
    for name, callback in cfg.callbacks.items():
        monitor = callback and callback.get("monitor")
        if monitor and monitor not in METRICS:
            raise UserError(f"callbacks.{name}.monitor={monitor}: no such metric; there are: {', '.join(METRICS)}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: must be a whole number from 0 to {2**32 - 1}")


def check_devices(accelerator: str, devices: object) -> None:
    """UserError if more GPUs are asked for than there are."""
    gpus = torch.cuda.device_count()
    wanted = len(devices) if isinstance(devices, list | tuple) else devices
    if isinstance(wanted, int) and wanted > max(gpus, 1) and accelerator in ("auto", "gpu", "cuda"):
        way = f"use trainer.devices={max(gpus, 1)}"
        if gpus == 0:
            way += ", or trainer.accelerator=cpu for several processes on the CPU"
        raise UserError(f"trainer.devices={wanted}: this machine has {gpus} GPUs; {way}")
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
