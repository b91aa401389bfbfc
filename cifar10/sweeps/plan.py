"""What a sweep sets out to do: its objectives, its settings and how many jobs; noted in its folder when it starts."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cifar10.errors import UserError, cause_of
from cifar10.files import atomic_write
from cifar10.metric_names import mode_of
from cifar10.report.sweep.jobs import Objective
from cifar10.run_folder import overrides_of
from cifar10.untrusted import fits

FORM = {"objectives": [str], "settings": [str], "jobs": (int, None)}


@dataclass
class Plan:
    """objectives: names of figures, the first decides. settings: those that vary. jobs: None if that is not known."""

    objectives: Sequence[str] = ("val/acc",)
    settings: Sequence[str] = ()
    jobs: int | None = None


def plan_of(hydra: Any) -> Plan:
    """The plan of the sweep that Hydra is about to run."""
    named = OmegaConf.select(hydra, "sweeper.objective") or Plan.objectives
    varied = varied_settings(hydra)
    jobs = OmegaConf.select(hydra, "sweeper.n_trials") or count_jobs(list(varied.values()))
    return Plan([named] if isinstance(named, str) else list(named), list(varied), jobs)


def varied_settings(hydra: Any) -> dict[str, Override | None]:
    """The settings with several values, in the sweeper's `params` or on the command line; None for an own notation."""
    params = OmegaConf.select(hydra, "sweeper.params") or {}
    found: dict[str, Override | None] = {}
    for text in [*(f"{key}={value}" for key, value in params.items()), *overrides_of(hydra)]:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            found[text.partition("=")[0].lstrip("+")] = None
            continue
        found.pop(override.key_or_group, None)
        if override.is_sweep_override():
            found[override.key_or_group] = override
    return found


def count_jobs(varied: Sequence[Any]) -> int | None:
    """How many jobs a grid has; None for settings that are searched, or whose values a pattern gives."""
    if any(one is None or not one.is_discrete_sweep() or isinstance(one.value(), Glob) for one in varied):
        return None
    return math.prod(len(list(one.sweep_string_iterator())) for one in varied)


def keep_plan(file: Path, hydra: Any) -> None:
    with atomic_write(file, "w") as stream:
        json.dump(vars(plan_of(hydra)), stream)


def read_plan(file: Path) -> Plan:
    """The plan that was noted; the default for a sweep of an earlier version. UserError if the file is damaged."""
    try:
        found = json.loads(file.read_text())
        if not fits(found, FORM) or not found.get("objectives"):
            raise ValueError("not a sweep's plan")
    except FileNotFoundError:
        return Plan()
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({cause_of(error)})") from error
    return Plan(**{key: found[key] for key in FORM if key in found})


def objectives_of(plan: Plan) -> list[Objective]:
    """With their directions; of what is no metric, time or operations for instance, less is better."""
    return [Objective(name, mode_of(name) or "min") for name in plan.objectives]
