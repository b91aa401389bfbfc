"""The settings that a run was started with, read from its folder to be given to Hydra once more.

Who wrote that file is not known: what could make Hydra build, read or write anything else has to be given again by
hand. Imports Hydra's part alone, as cli.py does.
"""

import importlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar10.errors import UserError, cause_of

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
