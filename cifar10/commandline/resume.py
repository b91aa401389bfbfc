"""A resumed run: the settings stored in its folder, overridden by those given along with `resume=`.

Anyone may have written the stored settings: whatever could make Hydra build, read or write anything else has to be
given again on the command line. They are used as composed: neither a changed conf/ nor the run's --config-dir matters.
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cifar10.errors import UserError
from cifar10.run_folder import Free, RunFolder, is_free
from cifar10.shell import quoted
from cifar10.untrusted import key_of, read_list, refusal, setting_faults

STORED = "stored"  # the name by which Hydra finds the run's configuration
PLACE = ("hydra.run.dir", "hydra.output_subdir", "hydra.mode")


def resumed_folder(settings: Sequence[str]) -> Path | None:
    """The folder that `resume=FOLDER` names; None if there is none."""
    given = [setting for setting in settings if key_of(setting) == "resume"]
    text = given[-1].partition("=")[2] if given else ""
    if text in ("", "null"):
        return None
    with contextlib.suppress(HydraException):  # a path that Hydra wants quoted
        value = OverridesParser.create().parse_override(given[-1]).value()
        text = value if isinstance(value, str) else text
    return Path(text)


def resume_run(folder: Path, settings: Sequence[str]) -> list[str]:
    """The settings from which Hydra composes a run as stored; those given with `resume=` take precedence.

    Raises UserError if the folder holds no run, or if a given setting cannot change.
    """
    run = RunFolder(folder)
    if not run.config.is_file():
        why = f"{run.config} does not exist" if folder.is_dir() else "no such folder"
        raise UserError(f"resume={folder}: not a run that can be resumed, {why}")
    stored: Any = OmegaConf.to_container(run.read_config(), resolve=False)
    read_list(run.overrides)
    given = [setting for setting in settings if key_of(setting) not in ("resume", *PLACE)]
    given = [re.sub(r"^\+(?=[\w.]+=)", "++", setting) for setting in given]  # the stored settings may have it already
    refused = {section for key, *_ in setting_faults(stored) for section in above(key)}  # may be given again
    for setting in given:
        key = key_of(setting)
        if key in refused:
            take_out(stored, key)
        elif not is_free(key, Free.RESUME):
            raise UserError(
                f"{key}: a resumed run keeps its own settings; trainer.max_epochs and where it runs"
                " (trainer.devices, data.root, ...) can change; leave it out, or start a new run"
            )
    for key, value, reason in setting_faults(stored):
        raise refusal(run.config, f"{key}={value}", reason)
    ConfigStore.instance().store(STORED, {"defaults": ["command", "_self_"], **stored})
    # The run's settings are written once it trains: a mistake in `given` must not change what the run records.
    place = (quoted(folder), quoted(folder), "null", "RUN")
    return [*given, *(f"{key}={value}" for key, value in zip(("resume", *PLACE), place, strict=True))]


def above(key: str) -> list[str]:
    """The key and the sections that contain it: a, a.b, a.b.c."""
    parts = key.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def take_out(tree: dict, key: str) -> None:
    """Set a key of nested dicts to null."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree[section] if isinstance(tree.get(section), dict) else {}
    tree[last] = None


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the settings KEY=VALUE; UserError for flags that do not exist."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; settings are KEY=VALUE, flags are listed by --hydra-help")

    parser: Any = get_args_parser()
    parser.error = refuse
    settings = parser.parse_intermixed_args(list(arguments)).overrides
    return [argument for argument in arguments if argument not in settings], settings
