"""What lies in a run's folder, read as data: it may be damaged, or written by somebody else.

Only classes of this project are built from it, only tensors and plain values are loaded, and what has another form is
an error in a line.
"""

import importlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar10.errors import UserError, cause_of

PHASE = dict.fromkeys(("phase", "epochs", "seconds", "trained_parameters", "flops_per_epoch"), float)
COST = dict.fromkeys(("parameters", "bytes", "forward_flops", "train_flops"), float)
# the form of run.json, of which a report shows parts; a key may be missing
SUMMARY = {
    **{"val/acc": object, "val/loss": object, "data": str, "synthetic": bool, "train_images": int, "val_images": int},
    **{"epochs": int, "seconds": (float, None), "hardware": str, "precision": str, "commit": str, "versions": {}},
    "cost": COST | {"phases": [PHASE]},
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


YAML_ERRORS = (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError)


PACKAGES = ("cifar10", "pytorch_lightning", "torchmetrics")  # whose classes a stored setting may name


RESOLVERS = ("oc.env", "oc.select", "now", "hydra")  # others make sections out of text


PLACES = ("output_dir", "default_root_dir", "dirpath", "save_dir", "path", "filename")  # where something is written


KEY = r"[A-Za-z_]\w*(?:[./][\w-]+)*(?:@[\w.]+)?"


FORM = re.compile(rf"(?:\+{{0,2}}(?P<key>{KEY})=(?P<value>.*)|~(?P<gone>{KEY})(?:=.*)?)")


OUTSIDE = re.compile(r"\.\.|(?:^|[\[,'\"\s])[/~]")  # a path that leaves its folder


def load_yaml(file: Path) -> object:
    """What OmegaConf makes of a file; one of `YAML_ERRORS` if it is damaged, or harmful."""
    text, depth = file.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > 20:  # a few lines of these can take gigabytes, or for ever
            raise ValueError("it has aliases, or is too deep")
    return OmegaConf.load(io.StringIO(text))


def read_overrides(file: Path) -> list[str]:
    """The overrides in a run's .hydra/overrides.yaml; UserError if it is anything else than a list of them."""
    try:
        found = load_yaml(file)
        overrides = list(OmegaConf.to_container(found)) if isinstance(found, ListConfig) else [None]
    except YAML_ERRORS as error:
        raise UserError(f"{file} cannot be read as a list of settings ({cause_of(error)})") from error
    if not all(isinstance(override, str) for override in overrides):
        raise UserError(f"{file} cannot be read as a list of settings (it is no list of text)")
    return overrides


def check_overrides(file: Path, overrides: Sequence[str]) -> None:
    """UserError that names the file and the first override that is not to be given to Hydra unseen."""
    for override in overrides:
        if reason := fault(override):
            raise UserError(
                f"{file} holds {override[:80]!a}, which is not taken from a file ({reason});"
                " give it again by hand if it is meant"
            )


def fault(override: str) -> str:
    """What speaks against replaying an override; empty if nothing does."""
    form = FORM.fullmatch(override)
    if not form:
        return "no setting of the form key=value"
    key, value = form["key"] or form["gone"], form["value"] or ""
    if "hydra" in re.split(r"\W", key):
        return "it is Hydra's own"
    resolvers, put_together = re.findall(r"\$\{([^}:]*):", value), re.search(r"\$\{[^}:]*\$", value)
    if put_together or not set(resolvers) <= set(RESOLVERS):
        return f"it computes; allowed are {', '.join(RESOLVERS)}"
    if OUTSIDE.search(value) and ("." not in key or key.rpartition(".")[2] in PLACES):
        return "it leads out of its folder"
    if "_target_" in override:
        names = re.findall(r"_target_\s*[=:]\s*([\w.]+)\s*(?=[,}]|$)", override)
        if len(names) < override.count("_target_") or not all(map(is_own_class, names)):
            return f"it names no class of {', '.join(PACKAGES)}"
    return ""


def is_own_class(name: str) -> bool:
    """Whether a dotted name is that of a class of `PACKAGES`, defined there; imports nothing outside of them."""
    module, _, name = name.rpartition(".")
    if module.partition(".")[0] not in PACKAGES:
        return False
    try:
        found = vars(importlib.import_module(module)).get(name)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.partition(".")[0] in PACKAGES


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
