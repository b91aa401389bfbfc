"""A folder belongs to one process at a time: it is locked before Hydra writes anything into it."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from cifar10.commandline.error_messages import fail
from cifar10.errors import FolderBusy, UserError
from cifar10.files import locked, remove_leftovers
from cifar10.run_folder import RunFolder, overrides_of
from cifar10.shell import quoted
from cifar10.sweeps.study import is_search
from cifar10.sweeps.summary import SweepNotes
from cifar10.untrusted import key_of


class ClaimFolder(Callback):
    """Locks the folder of a run or of a sweep until the command ends; Hydra calls it before creating the folder.

    If the folder was not named on the command line and exists already, because two runs began in the same second, the
    second one gets a numbered folder.
    """

    held = contextlib.ExitStack()  # the locks of this process

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        claim(config, "hydra.run.dir", resumed=bool(config.get("resume")))

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        claim(config, "hydra.sweep.dir", resumed=SweepNotes.resumed)


@contextlib.contextmanager
def claims_released() -> Iterator[None]:
    """Release on exit every folder claimed within; those created for it are removed if empty."""
    try:
        yield
    finally:
        ClaimFolder.held.close()
        HydraConfig.instance().cfg = None


def claim(config: DictConfig, key: str, resumed: bool) -> None:
    """Create and lock the folder that a setting names; ends the program with one line if another process holds it.

    A folder that holds a run is refused as well, unless the run is resumed.
    """
    named = resumed or any(key_of(override) == key for override in overrides_of(config.hydra, "hydra"))
    try:
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        folder = Path(str(OmegaConf.select(config, key)))
        folder = make(folder) if named else make_another(folder)
        busy = f"{RunFolder(folder)}: another process is training in this folder; wait for it, or stop it first"
        with contextlib.suppress(FolderBusy) if resumed and is_search(folder) else contextlib.nullcontext():
            ClaimFolder.held.enter_context(locked(RunFolder(folder).lock, busy))  # several processes share a search
        if key == "hydra.run.dir":
            if named and not resumed and RunFolder(folder).begun:
                way = f"resume it ({RunFolder(folder).resume_command}), or name a new folder"
                raise UserError(f"hydra.run.dir={folder}: already holds a run; {way}")
            remove_leftovers(folder)
        elif not resumed:
            for lock in folder.glob("*/**/.lock"):  # of a job that is resumed on its own
                with locked(lock, busy):
                    pass
    except UserError as error:  # Hydra turns an exception in a callback into a warning
        fail(error)
    except (OSError, OmegaConfBaseException):
        return  # Hydra runs into it too, and reports it
    if not named:
        with flag_override(config.hydra, ["readonly", "struct"], False):
            OmegaConf.update(config, key, str(folder))
            config.hydra.overrides.hydra.append(f"{key}={quoted(folder)}")  # from which a sweep's jobs are composed


def make(folder: Path, exist_ok: bool = True) -> Path:
    """Create a folder, to be removed at the end of the command if it is empty."""
    for place in reversed([folder, *folder.parents]):
        with contextlib.suppress(FileExistsError):
            place.mkdir()
            ClaimFolder.held.callback(remove_if_empty, place.absolute())
            continue
        if place == folder and not exist_ok:
            raise FileExistsError(folder)
    return folder


def make_another(folder: Path) -> Path:
    """Create a folder that did not exist: with this name, or this name and a number."""
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            return make(folder if number == 1 else folder.with_name(f"{folder.name}_{number}"), exist_ok=False)
    raise AssertionError


def remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
