"""The jobs of a sweep: what is recorded of each, and how an interrupted sweep resumes those that have not finished.

The notes are in the sweep's `.jobs/`: the sweep's own overrides, its plan, and one file for each job that began. A new
sweep deletes them, so a job that finds its note has already begun in this sweep. Imports nothing heavy.
"""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar10.errors import JobChanged, UserError, cause_of
from cifar10.files import atomic_write, locked, remove_leftovers
from cifar10.run_folder import Free, RunFolder, is_free, overrides_of
from cifar10.shell import quoted
from cifar10.sweeps.plan import keep_plan, read_plan
from cifar10.sweeps.study import is_search
from cifar10.untrusted import check_overrides, key_of

log = logging.getLogger(__name__)

NOTES, OVERRIDES, PLAN = ".jobs", "overrides", "plan"
TRIALS = "hydra.sweeper.n_trials"


def is_sweep(folder: Path) -> bool:
    return (folder / NOTES / OVERRIDES).is_file()


def keep_overrides(hydra: HydraConf) -> None:
    """Record what the sweep consists of, so that it can be resumed; earlier notes in its folder are another sweep's."""
    folder = Path(hydra.sweep.dir) / NOTES
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = [*overrides_of(hydra), *overrides_of(hydra, "hydra")]
    with atomic_write(folder / OVERRIDES, "w") as file:
        json.dump(kept, file)
    keep_plan(folder / PLAN, hydra)


def keep_trials(hydra: HydraConf) -> None:
    """Record how many trials a search has, if it has been resumed with more: a further resume goes on to as many."""
    folder = Path(hydra.sweep.dir) / NOTES
    if read_plan(folder / PLAN).jobs != hydra.sweeper.n_trials:
        kept = [one for one in json.loads((folder / OVERRIDES).read_text()) if key_of(one) != TRIALS]
        with atomic_write(folder / OVERRIDES, "w") as file:
            json.dump([*kept, f"{TRIALS}={hydra.sweeper.n_trials}"], file)
        keep_plan(folder / PLAN, hydra)


def resume_sweep(folder: Path, given: Sequence[str]) -> list[str]:
    """The settings that resume the sweep in a folder; UserError for one that would make it a different sweep."""
    stored = folder / NOTES / OVERRIDES
    try:
        own: list[str] = json.loads(stored.read_text())
        if not isinstance(own, list) or not all(isinstance(override, str) for override in own):
            raise ValueError("not a list of settings")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"resume={folder}: {stored} cannot be read ({cause_of(error)})") from error
    given = [one for one in given if key_of(one) != "resume"]
    for argument in given:
        several = OverridesParser.create().parse_override(argument).is_sweep_override()
        if argument not in own and (several or not is_free(key_of(argument), Free.SWEEP)):
            raise UserError(
                f"{argument}: a sweep is resumed as it is; only where it runs can change (data.root,"
                " trainer.accelerator, trainer.devices, hydra/launcher and its settings), to a single value"
            )
        if key_of(argument).startswith("hydra.sweeper.") and not is_search(folder):
            raise UserError(f"{argument}: this sweep is a grid, and has all its jobs; searches alone have trials")
    changed = {key_of(argument): argument for argument in given}
    dropped = ("hydra.sweep.dir", "hydra.mode") + ("hydra.launcher.",) * ("hydra/launcher" in changed)
    own = [one for one in own if not key_of(one).startswith(dropped)]
    check_overrides(stored, [one for one in own if key_of(one) not in changed])
    added = [argument for key, argument in changed.items() if key not in map(key_of, own)]
    own = [changed.get(key_of(one), one) for one in own]  # in place, as the jobs' numbers go by the order
    # A job's .hydra/ stays as it is: a kill while it is rewritten would cost a finished run.
    hydra = [f"hydra.sweep.dir={quoted(folder)}", "hydra.mode=MULTIRUN", "hydra.output_subdir=null"]
    return [*own, *added, *hydra]


@contextlib.contextmanager
def taken_up(cfg: DictConfig) -> Iterator[float | None]:
    """Lock the job's folder for this process; yields the result of a sweep's job that has already finished.

    A job that can be resumed gets `cfg.resume` set, also if it has failed; one that cannot starts anew. A run outside a
    sweep is left as it is. Raises UserError if another process trains in the folder, or if the job began with
    different settings.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        yield None
        return
    run = RunFolder(hydra.runtime.output_dir)
    with locked(run.lock, f"{run}: another process is training in this folder; wait for it, or stop it first"):
        remove_leftovers(run.path)
        yield begin(cfg, hydra, read_note(hydra))


def begin(cfg: DictConfig, hydra: HydraConf, note: dict | None) -> float | None:
    """Prepare a job's folder and note that it began; returns the result of a job that has already finished."""
    run = RunFolder(hydra.runtime.output_dir)
    if note is not None and not is_same(note, hydra):
        raise JobChanged(
            f"job {hydra.job.num} began with different settings: the experiment has changed; start a new sweep"
        )
    if note is None or not (run.summary.is_file() or run.can_go_on):
        earlier = (run.split, run.unreadable, run.duplicates) if note is None else ()  # of another sweep's run
        for file in (run.summary, run.last, run.best, run.metrics, *earlier):
            file.unlink(missing_ok=True)
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        if hydra.output_subdir is None:  # in a resumed sweep Hydra does not write it
            run.write_settings(cfg, overrides_of(hydra), OmegaConf.create({"hydra": hydra}))
    write_note(hydra, "unfinished")
    if run.summary.is_file():
        log.info("this job has already finished: it is left as it is")
        return float(json.loads(run.summary.read_text()).get("val/acc", math.nan))
    if run.can_go_on:
        cfg.resume = str(run.path)
    return None


def write_note(hydra: HydraConf, status: str, error: str = "") -> None:
    sweep = Path(hydra.sweep.dir)
    note = {
        "job": hydra.job.num,
        "status": status,
        "error": error,
        "overrides": values_of(hydra),
        "folder": os.path.relpath(hydra.runtime.output_dir, sweep),
    }
    (sweep / NOTES).mkdir(exist_ok=True)
    with atomic_write(sweep / NOTES / f"{hydra.job.num}.json", "w") as file:
        json.dump(note, file)


def read_note(hydra: HydraConf) -> dict | None:
    """The job's note; None if it has not begun in this sweep."""
    file = Path(hydra.sweep.dir) / NOTES / f"{hydra.job.num}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def is_same(note: dict, hydra: HydraConf) -> bool:
    """Whether a job is what its note says, apart from settings that may change."""
    one, other = (
        {key: value for key, value in of.items() if not is_free(key, Free.SWEEP)}
        for of in (note["overrides"], values_of(hydra))
    )
    return one == other


def values_of(hydra: HydraConf) -> dict[str, str]:
    """A job's overrides by key."""
    overrides = (override.partition("=") for override in overrides_of(hydra))
    return {key.lstrip("+"): value for key, _, value in overrides}
