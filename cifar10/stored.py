"""What lies in a run's folder, read as data: it may be damaged, or written by somebody else.

Only classes of this project are built from it, only tensors and plain values are loaded, and what has another form is
an error in a line.
"""

import importlib
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from cifar10.errors import UserError, cause_of
from cifar10.replay import YAML_ERRORS, load_yaml

# the form of run.json, of which a report shows parts; a key may be missing
SUMMARY = {
    **{"val/acc": object, "val/loss": object, "data": str, "synthetic": bool, "train_images": int, "val_images": int},
    **{"epochs": int, "seconds": (float, None), "hardware": str, "precision": str, "commit": str, "versions": {}},
}


def read_config(folder: Path) -> DictConfig:
    """A run's .hydra/config.yaml; UserError unless it has what a run's configuration has."""
    file = folder / ".hydra" / "config.yaml"
    try:
        cfg = load_yaml(file)
        if not isinstance(cfg, DictConfig):
            raise ValueError("it has no sections")
        check_environment("", OmegaConf.to_container(cfg, resolve=False))
        wanted = {"data": DictConfig, "model": DictConfig, "name": str, "seed": int}
        for key, kind in wanted.items():
            if not isinstance(cfg.get(key), kind):
                raise ValueError(f"{key} is missing or no {'section' if kind is DictConfig else kind.__name__}")
        callbacks = cfg.get("callbacks") or {}
        if not isinstance(callbacks, dict | DictConfig) or not isinstance(
            callbacks.get("two_phase") or {}, dict | DictConfig
        ):
            raise ValueError("callbacks is no section")
        if not cfg.name.isprintable():
            raise ValueError("name is more than one line of text")
    except YAML_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"run={folder}: {file} is not a configuration of this project ({reason})") from error
    return cfg


def check_environment(key: str, value: object) -> None:
    """ValueError for a value that takes anything but a path from the environment: a report would show it."""
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            check_environment(f"{key}.{name}".lstrip("."), item)
    elif key.endswith((".root", ".weights")):
        return
    elif isinstance(value, str) and re.search(r"\$\{[^}]*\benv\b|\$\{[\w.]*\$\{", value):
        raise ValueError(f"{key} reads the environment")


def read_summary(folder: Path) -> dict:
    """A finished run's run.json; FileNotFoundError if it has not finished, UserError if the file has another form."""
    file = folder / "run.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"run={folder}: {file} cannot be read ({cause_of(error)})") from error
    if not isinstance(summary, dict):
        raise UserError(f"run={folder}: {file} cannot be read (it is no summary of a run)")
    if odd := [key for key, form in SUMMARY.items() if key in summary and not fits(summary[key], form)]:
        raise UserError(f"run={folder}: {file} cannot be read ({odd[0]} is {summary[odd[0]]!r:.40})")
    return {key: value for key, value in summary.items() if key in SUMMARY}


def fits(value: object, form: object) -> bool:
    """Whether a value read from JSON has a form: a type, a tuple of forms, [form of every item], {key: form}.

    A float may be a whole number or NaN; numbers lie from 0 to 1e18. A dict may lack keys.
    """
    if isinstance(form, tuple):
        return any(fits(value, one) for one in form)
    if isinstance(form, dict):
        return isinstance(value, dict) and all(fits(value[key], one) for key, one in form.items() if key in value)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if form in (int, float):
        return isinstance(value, int | form) and not isinstance(value, bool) and (0 <= value < 1e18 or value != value)
    return value is None if form is None else isinstance(value, form)


def own_class(folder: Path, node: DictConfig, base: type) -> type:
    """The class that a stored configuration names; UserError unless it is a `base` of this project, or a kind of it."""
    name, package = str(node.get("_target_")), base.__module__.rpartition(".")[0]
    module, _, last = name.rpartition(".")
    if not re.fullmatch(rf"{re.escape(package)}(\.\w+)+", name):
        raise UserError(f"run={folder}: its configuration names {name}, which is no class of this project")
    try:
        found = vars(importlib.import_module(module))[last]
    except (ImportError, KeyError) as error:
        raise UserError(f"run={folder}: its configuration names {name}, which this version does not have") from error
    if not (isinstance(found, type) and issubclass(found, base) and found.__module__ == module):
        raise UserError(f"run={folder}: its configuration names {name}, which is no {base.__name__} of this project")
    return found


def own_node(folder: Path, key: str, node: DictConfig, base: type) -> DictConfig:
    """A stored section as plain values to build its class from: without interpolations, and without other classes."""
    own_class(folder, node, base)
    try:
        plain = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"run={folder}: {key}: {' '.join(str(error).split())}") from error
    for name, value in plain.items():
        items = value if isinstance(value, list) else [value]
        special = str(name).startswith("_") and name != "_target_"
        if special or any(isinstance(item, dict | list) or "${" in str(item) for item in items):
            raise UserError(f"run={folder}: its configuration has {key}.{name}, which is no number, text or list")
    return OmegaConf.create(plain)


def load_plain(file: str | Path) -> object:
    """What is in a torch file, tensors and plain values alone; ValueError, in one line, for anything else."""
    try:
        if zipfile.is_zipfile(file):  # torch looks at no checksum
            with zipfile.ZipFile(file) as parts:
                if damaged := parts.testzip():
                    raise ValueError(f"damaged: the checksum of its part {damaged} is another")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each raise their own kinds for damaged files
        reason = str(error).strip() or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in reason:  # torch advises to execute the file
            reason = "no plain file of tensors, or damaged"
        elif isinstance(error, OSError | EOFError) or "PytorchStreamReader" in reason:
            reason = "damaged, or not complete"
        raise ValueError(reason.splitlines()[0][:200]) from error


def read_checkpoint(file: Path) -> dict:
    """A checkpoint of Lightning's: tensors and plain values; UserError for anything else. Nothing in it is executed."""
    try:
        content = load_plain(file)
    except ValueError as error:
        raise UserError(f"{file}: not a checkpoint ({error})") from error
    content = content if isinstance(content, dict) else {}
    state, settings = content.get("state_dict"), content.get("hyper_parameters")
    if not isinstance(state, dict) or not isinstance(settings, dict):
        raise UserError(f"{file}: not a checkpoint of this project (no weights, or no settings of the model)")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise UserError(f"{file}: not a checkpoint of this project (its weights are no tensors)")
    return content
