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
# of a run that is resumed: how long and where it runs, and how it is watched
MAY_CHANGE = (
    *("trainer.max_epochs.", "trainer.checkpoint_every_n_steps.", "trainer.log_every_n_steps."),
    *("trainer.accelerator.", "trainer.devices.", "trainer.num_nodes.", "trainer.strategy.", "trainer.precision."),
    *("trainer.compile.", "trainer.benchmark.", "trainer.enable_progress_bar.", "trainer.enable_model_summary."),
    *("data.root.", "data.eval_batch_size.", "model.weights.", "callbacks.dashboard.", "hydra."),
)
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


def resume_arguments(arguments: list[str]) -> list[str]:
    """Turn `resume=RUN` into that run's own overrides and folder; what is given beside it wins.

    Raises UserError if the folder is no run, or if anything but `MAY_CHANGE` is given.
    """
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not folders or folders[-1] in ("", "null"):
        return arguments
    folder = Path(folders[-1])
    overrides = folder / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        raise UserError(f"resume={folder}: not a run that can be resumed, {overrides} does not exist")
    own = [override for override in read_overrides(overrides) if not override.startswith("resume=")]
    given = [argument for argument in arguments if not argument.startswith("resume=")]
    keys = {key_of(argument) for argument in given if not argument.startswith("-")}
    refused = {key_of(override) for override in own if fault(override)}  # may be given again by hand
    if other := sorted(key for key in keys - refused if not f"{key}.".startswith(MAY_CHANGE)):
        raise UserError(
            f"{other[0]}: a resumed run keeps its own settings; trainer.max_epochs can change, and where it runs"
            " (trainer.devices, data.root, ...)"
        )
    own = [override for override in own if key_of(override) not in keys]
    check_overrides(overrides, own)
    # The run's .hydra/ stays as it was made: a mistake in `given` must not change what the run says of itself.
    run = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
    return [*own, *given, *run, "hydra.mode=RUN"]  # whatever the experiment says: it is one run


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
