"""The loggers of a run: built from the section `logger`, and told the run's name, group and settings."""

import logging
from pathlib import Path
from typing import Any, cast

from lightning_utilities.core.imports import RequirementCache
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from cifar10.commandline.instantiate import make
from cifar10.errors import UserError
from cifar10.shell import program, shown
from cifar10.sweeps.jobs import NOTES

log = logging.getLogger(__name__)

# in a full mlflow there is a mlflow-skinny
PACKAGES = {"wandb": "wandb>=0.19", "mlflow": "mlflow-skinny>=3", "trackio": "trackio>=0.30"}


def logger_nodes(cfg: DictConfig) -> dict[str, DictConfig]:
    """The section of each logger by its key. A run that was stored when there was one logger has only the section."""
    section: Any = cfg.get("logger") or {}
    nodes: dict[str, Any] = (
        {"logger": section} if "_target_" in section else {f"logger.{name}": section[name] for name in section}
    )
    return {key: node for key, node in nodes.items() if node is not None}


def check_packages(cfg: DictConfig) -> None:
    """UserError for a logger whose package is not installed."""
    for key in logger_nodes(cfg):
        name = key.rpartition(".")[2]
        if name in PACKAGES and not RequirementCache(PACKAGES[name]):
            raise UserError(f"logger={name}: needs {PACKAGES[name]}; pip install -e '.[{name}]'")


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers; those that take a name, run_name or group get the run's, unless they have one."""
    folder = Path(cfg.output_dir)
    sweep = next((above for above in folder.parents if (above / NOTES).is_dir()), None)
    name = f"{cfg.name} {folder.relative_to(sweep.parent) if sweep else folder.name}"
    labels = {"name": name, "run_name": name, "group": (sweep or folder).name}
    if slow := [key.rpartition(".")[2] for key in logger_nodes(cfg) if key.rpartition(".")[2] in PACKAGES]:
        log.info(f"opening {', '.join(slow)}")
    loggers = []
    for key, node in logger_nodes(cfg).items():
        missing = {label: value for label, value in labels.items() if label in node and node[label] is None}
        node = OmegaConf.create({**cast(dict, OmegaConf.to_container(node, resolve=True)), **missing})
        loggers.append(make(key, node, Logger))
    return loggers


def begin(loggers: list[Logger], settings: dict[str, object]) -> None:
    """Log the settings, so that a killed run shows them; TensorBoard has them beside the results, at the end."""
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings)


def viewers(trainer: Any) -> list[str]:
    """How to see what each logger has: a command or a place."""
    found = []
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, TensorBoardLogger):
            found.append(f"{program('tensorboard')} --logdir outputs")
        elif isinstance(logger, CSVLogger):
            found.append(shown(Path(logger.log_dir) / "metrics.csv"))
        elif hasattr(logger, "viewer"):
            found.append(logger.viewer)
    return found
