"""The jobs of a sweep: what is noted of each, and how an interrupted sweep goes on with those that have not finished.

The notes lie in the sweep's `.jobs/`: the sweep's own overrides, and one file for each job that began. A new sweep
forgets them, so a job that finds its note has begun in this sweep before. Imports nothing heavy.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar10.commandline.resume import check_overrides, key_of
from cifar10.errors import UserError, cause_of
from cifar10.files import atomic_write

log = logging.getLogger(__name__)

NOTES, OVERRIDES = ".jobs", "overrides"
# where and how a sweep is computed; all else would make it another sweep
MAY_CHANGE = ("data.root", "trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar")
ITS_PLACE = ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir", "hydra.mode", "hydra.output_subdir")
# a run's result, and what a run that begins anew would add to
RESULT, CHECKPOINT = "run.json", "checkpoints/last.ckpt"
REMAINS = (RESULT, CHECKPOINT, "checkpoints/best.ckpt", "metrics.csv")


def resumed_sweep(arguments: Sequence[str]) -> Path | None:
    """The sweep's folder that `resume=FOLDER` means; None where that is a run's, or where there is none."""
    folders = [Path(argument.partition("=")[2]) for argument in arguments if argument.startswith("resume=")]
    return folders[-1] if folders and (folders[-1] / NOTES / OVERRIDES).is_file() else None


def keep_overrides(hydra: DictConfig) -> None:
    """Note what the sweep consists of, to go on with it one day; earlier notes in its folder are of another sweep."""
    folder = Path(hydra.sweep.dir) / NOTES
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = [*OmegaConf.to_container(hydra.overrides.task), *OmegaConf.to_container(hydra.overrides.hydra)]
    with atomic_write(folder / OVERRIDES, "w") as file:
        json.dump(kept, file)


def resume_sweep(folder: Path, given: Sequence[str]) -> list[str]:
    """The arguments that go on with the sweep in a folder; UserError for settings that would make it another."""
    try:
        own = json.loads((folder / NOTES / OVERRIDES).read_text())
        if not isinstance(own, list) or not all(isinstance(override, str) for override in own):
            raise ValueError("it is no list of settings")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"resume={folder}: {folder / NOTES / OVERRIDES} cannot be read ({cause_of(error)})") from error
    given = [one for one in given if one not in ("-m", "--multirun") and not one.startswith("resume=")]
    for argument in given:
        key = key_of(argument)
        may_change = key in MAY_CHANGE or (key.startswith(("hydra.", "hydra/")) and key not in ITS_PLACE)
        if not may_change or OverridesParser.create().parse_override(argument).is_sweep_override():
            raise UserError(
                f"{argument}: a sweep is resumed as it is; only single values of {', '.join(MAY_CHANGE)} may change"
            )
    changed = {key_of(argument): argument for argument in given}
    own = [changed.pop(key_of(override), override) for override in own]
    own = [override for override in own if key_of(override) not in ("hydra.sweep.dir", "hydra.mode")]
    check_overrides(folder / NOTES / OVERRIDES, [override for override in own if override not in given])
    # A job's .hydra/ stays as it was made: to be killed while it is written again would cost a finished run.
    hydra = [f"hydra.sweep.dir='{folder}'", "hydra.mode=MULTIRUN", "hydra.output_subdir=null"]
    return [*own, *changed.values(), *hydra]


def begin(config: DictConfig) -> None:
    """Prepare a job's folder and note that it began: a job that cannot be taken up begins anew, as if alone."""
    hydra, note = config.hydra, read_note(config.hydra)
    folder = Path(hydra.runtime.output_dir)
    if note is not None and not is_same(note, hydra):
        return  # `take_up` refuses it
    failed = note is None or note["status"] == "failed"
    if failed or not any((folder / name).is_file() for name in (RESULT, CHECKPOINT)):
        for name in REMAINS:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        if hydra.output_subdir is None:  # in a resumed sweep Hydra does not write it
            write_settings(config, folder / ".hydra")
    write_note(hydra, "unfinished")


def take_up(cfg: DictConfig) -> float | None:
    """The result of a sweep's job that has finished before; else None, and `cfg.resume` set where it can go on.

    Raises UserError if the job began with other settings.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    folder, note = Path(hydra.runtime.output_dir), read_note(hydra)
    if note is not None and not is_same(note, hydra):
        raise UserError(f"job {hydra.job.num} began with other settings: the experiment has changed; begin a new sweep")
    if (folder / RESULT).is_file():
        log.info("this job has finished before: it is left as it is")
        return float(json.loads((folder / RESULT).read_text())["val/acc"])
    if (folder / CHECKPOINT).is_file():
        cfg.resume = str(folder)
    return None


def write_settings(config: DictConfig, folder: Path) -> None:
    """The files that Hydra writes for every job."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "config": OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]),
        "hydra": OmegaConf.masked_copy(config, ["hydra"]),
        "overrides": config.hydra.overrides.task,
    }
    for name, part in parts.items():
        with atomic_write(folder / f"{name}.yaml", "w") as file:
            file.write(OmegaConf.to_yaml(part))


def write_note(hydra: DictConfig, status: str, error: str = "") -> None:
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


def read_note(hydra: DictConfig) -> dict | None:
    """What is noted of the job; None if it has not begun in this sweep."""
    file = Path(hydra.sweep.dir) / NOTES / f"{hydra.job.num}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def is_same(note: dict, hydra: DictConfig) -> bool:
    """Whether a job is what its note says, but for what may change."""
    one, other = ({k: v for k, v in of.items() if k not in MAY_CHANGE} for of in (note["overrides"], values_of(hydra)))
    return one == other


def values_of(hydra: DictConfig) -> dict[str, str]:
    """A job's overrides by key."""
    overrides = (override.partition("=") for override in hydra.overrides.task)
    return {key.lstrip("+"): value for key, _, value in overrides}
