"""Read settings and results that someone else may have written: nothing in them is executed, and errors are one line.

A stored setting may name classes of `PACKAGES` only, and may neither leave the run's folder nor compute anything.
"""

import importlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar10.errors import UserError, cause_of

YAML_ERRORS = (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError)
PACKAGES = ("cifar10", "pytorch_lightning", "torchmetrics")  # whose classes a stored setting may name
RESOLVERS = ("oc.env", "oc.select", "now", "hydra")  # others make sections out of text
PLACES = ("output_dir", "default_root_dir", "dirpath", "save_dir", "path", "filename")  # where something is written
SUBFOLDER = ("hydra.sweep.subdir", "hydra.job.config.override_dirname.")  # names folders within the sweep's own
# Hydra's own settings that a sweep is resumed with: numbers and names, and none that names a command or a file
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm", "ray")
HYDRA = {
    "hydra.launcher": (
        *(
            "n_jobs",
            "pre_dispatch",
            "batch_size",
            "timeout",
            "verbose",
            "timeout_min",
            "cpus_per_task",
            "gpus_per_node",
        ),
        *("tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout", "partition", "qos", "constraint", "exclude"),
        *("gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu", "account", "signal_delay_s"),
        *("max_num_timeout", "array_parallelism"),
    ),
    "hydra.sweeper": ("n_trials", "n_jobs", "objective", "sampler", "startup_trials", "seed", "max_batch_size"),
}
KEY = r"[A-Za-z_]\w*(?:[./][\w-]+)*(?:@[\w.]+)?"
NO_CLASS = f"it does not name a class of {', '.join(PACKAGES)}"
FORM = re.compile(rf"(?:\+{{0,2}}(?P<key>{KEY})=(?P<value>.*)|~(?P<gone>{KEY})(?:=.*)?)")
OUTSIDE = re.compile(r"\.\.|(?:^|[\[,'\"\s])[/~]")  # a path that leaves its folder


def load_yaml(file: Path) -> object:
    """What OmegaConf makes of a file; one of `YAML_ERRORS` if it is damaged or harmful."""
    text, depth = file.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > 20:  # a few lines of these can take gigabytes or never end
            raise ValueError("it has aliases, or is nested too deeply")
    return OmegaConf.load(io.StringIO(text))


def read_list(file: Path) -> list[str]:
    """The overrides in a run's overrides.yaml; UserError if it is anything but a list of them."""
    try:
        found = load_yaml(file)
        overrides: list[Any] = cast(list, OmegaConf.to_container(found)) if isinstance(found, ListConfig) else [None]
    except YAML_ERRORS as error:
        raise UserError(f"{file} cannot be read as a list of settings ({cause_of(error)})") from error
    if not all(isinstance(override, str) for override in overrides):
        raise UserError(f"{file} cannot be read as a list of settings (not a list of text)")
    return overrides


def check_environment(key: str, value: object) -> None:
    """ValueError for a value that takes anything but a path from the environment: a report would show it."""
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            check_environment(f"{key}.{name}".lstrip("."), item)
    elif key.endswith((".root", ".cache", ".weights")):
        return
    elif isinstance(value, str) and re.search(r"\$\{[^}]*\benv\b|\$\{[\w.]*\$\{", value):
        raise ValueError(f"{key} reads the environment")


def fits(value: object, form: Any) -> bool:
    """Whether a value read from JSON has a form: a type, a tuple of forms, [form of every item], {key: form}.

    A float may be a whole number or NaN; numbers range from 0 to 1e24. A dict may lack keys.
    """
    if isinstance(form, tuple):
        return any(fits(value, one) for one in form)
    if isinstance(form, dict):
        return isinstance(value, dict) and all(fits(value[key], one) for key, one in form.items() if key in value)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if form in (int, float):
        return isinstance(value, int | form) and not isinstance(value, bool) and (0 <= value < 1e24 or value != value)
    return value is None if form is None else isinstance(value, form)


def leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every leaf of nested dicts; an empty dict is one."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_overrides(file: Path, overrides: Sequence[str]) -> None:
    """UserError naming the file and the first override that must not be passed to Hydra unchecked."""
    for override in overrides:
        if reason := override_fault(override):
            raise refusal(file, override, reason)


def override_fault(override: str) -> str:
    """Why an override must not be passed to Hydra unchecked; empty if it may be."""
    form = FORM.fullmatch(override)
    if not form:
        return "not a setting of the form key=value"
    key, value = form["key"] or form["gone"], form["value"] or ""
    if key.startswith(SUBFOLDER):
        return text_fault("path", value)
    if is_harmless(key, value):
        return ""
    if "hydra" in re.split(r"\W", key):
        return "it is one of Hydra's own settings"
    names = re.findall(r"_target_\s*[=:]\s*([\w.]+)\s*(?=[,}]|$)", override)
    if len(names) < override.count("_target_") or not all(map(is_own_class, names)):
        return NO_CLASS
    return text_fault(key, value)


def is_harmless(key: str, value: str) -> bool:
    """Whether it is a setting in `HYDRA`, or a known launcher."""
    if key in ("hydra/launcher", "hydra/sweeper"):
        return value in (LAUNCHERS if key == "hydra/launcher" else ("basic", "search"))
    section, _, name = key.rpartition(".")
    plain = re.fullmatch(r"[\w.:/*,\[\]-]*", value, re.ASCII) and not OUTSIDE.search(value)
    return name in HYDRA.get(section, ()) and bool(plain)


def setting_faults(value: object, key: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, text, reason) of everything in a stored configuration that must not be used unchecked."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from setting_faults(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) and key != "defaults":
        for item in value:
            yield from setting_faults(item, key)
    elif reason := setting_fault(key, value):
        yield key, str(value), reason


def setting_fault(key: str, value: object) -> str:
    if key.partition(".")[0] in ("hydra", "defaults"):
        return "it is one of Hydra's own settings"
    if not isinstance(value, str):
        return ""
    return text_fault(key, value) or (NO_CLASS if key.endswith("_target_") and not is_own_class(value) else "")


def text_fault(key: str, value: str) -> str:
    """Why a setting's text must not be used unchecked; empty if it may be."""
    resolvers, put_together = re.findall(r"\$\{([^}:]*):", value), re.search(r"\$\{[^}:]*\$", value)
    if put_together or not set(resolvers) <= set(RESOLVERS):
        return f"it computes something; only {', '.join(RESOLVERS)} are allowed"
    if key.partition(".")[0] == "logger" and "://" in value:
        return "it names a server, which would be given your password for it"
    if OUTSIDE.search(value) and ("." not in key or key.rpartition(".")[2] in PLACES):
        return "it points outside its folder"
    return ""


def refusal(file: Path, setting: str, reason: str) -> UserError:
    return UserError(
        f"{file} contains {setting[:80]!a}, which is not accepted from a file ({reason});"
        " pass it on the command line if you mean it"
    )


def is_own_class(name: str) -> bool:
    """Whether a dotted name is a class defined in `PACKAGES`; imports nothing outside them."""
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
