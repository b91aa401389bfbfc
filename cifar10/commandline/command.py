"""The command line: Hydra, with every mistake of the user answered in one line.

Imports Hydra alone, so that `--help` and `--cfg job` answer at once.
"""

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cifar10.commandline import slurm
from cifar10.commandline.error_messages import CONF, in_a_line, is_known, quiet_threads
from cifar10.commandline.resume import resume_arguments
from cifar10.errors import UserError
from cifar10.machine import keep_freed_memory
from cifar10.processes import IS_FURTHER, REPLAYED, SWEEP, first_process_ends, sweep_arguments
from cifar10.signals import Interrupted, signals
from cifar10.sweeps.jobs import resume_sweep, resumed_sweep, take_up
from cifar10.sweeps.summary import summarised

log = logging.getLogger(__name__)

SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def command(config_name: str) -> Callable:
    """Decorate a function of the composed configuration as the program's main function.

    What it raises as UserError ends the program with that line and exit code, and an untouched run folder is removed.
    HYDRA_FULL_ERROR=1 shows tracebacks instead.
    """

    def decorate(function: Callable[[DictConfig], object]) -> Callable[[], None]:
        composed, arguments = False, []

        @functools.wraps(function)
        def job(cfg: DictConfig) -> object:
            nonlocal composed
            composed = True
            if IS_FURTHER:  # the first process says all this
                logging.getLogger().setLevel(logging.ERROR)
            if not SHOW_TRACEBACKS:
                os.environ.pop("HYDRA_FULL_ERROR", None)  # not for the processes that this one starts
            own, sweep = HydraConfig.get(), HydraConfig.get().mode == RunMode.MULTIRUN
            if sweep:
                os.environ[SWEEP] = own.sweep.dir
            keep_freed_memory()
            try:
                log.info("loading PyTorch and Lightning")  # a few seconds
                if config_name == "train":
                    slurm.note(
                        arguments, HydraConfig.get().sweep.dir if sweep else HydraConfig.get().runtime.output_dir
                    )
                with signals.watched():
                    result = take_up(cfg)  # of a sweep's job that has finished before
                    return function(cfg) if result is None else result
            except Interrupted:
                remove_unused_folder()
                raise
            except Exception as caught:
                if not is_known(caught):  # a bug
                    if sweep:
                        log.exception("this job has crashed")  # at its end the sweep shows the first one only
                    raise
                remove_unused_folder()
                if SHOW_TRACEBACKS:
                    raise
                error = in_a_line(caught, config_name)
                if sweep:
                    raise error from caught  # Hydra goes on with the other jobs, and raises this again at the end
                fail(error)
            finally:
                os.environ["HYDRA_FULL_ERROR"] = "1"

        @functools.wraps(function)
        def main() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands us the exception itself
            logging.raiseExceptions = False  # a log file that cannot be written is no reason for a traceback
            threading.excepthook = quiet_threads
            try:
                arguments[:] = sys.argv[1:]
                before = slurm.folder_of_before(arguments)
                wanted = flags_first([f"resume={before}"] if before else arguments)
                sweep = resumed_sweep(wanted)
                if sweep is not None:
                    wanted = resume_sweep(sweep, wanted)
                elif not (IS_FURTHER and REPLAYED in os.environ):
                    os.environ[REPLAYED] = "1"
                    wanted = resume_arguments(wanted)
                sys.argv[1:] = [*wanted, *sweep_arguments()]
                with summarised(resumed=sweep is not None):
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
            except KeyboardInterrupt:  # before the job began
                sys.exit(128 + signal.SIGINT)
            except Exception as error:
                if first_process_ends():
                    sys.exit(1)
                if SHOW_TRACEBACKS or (composed and not is_known(error)):
                    raise  # a bug; before the job begins, every exception is about what the user wrote
                fail(in_a_line(error, config_name))
            finally:
                if not SHOW_TRACEBACKS:
                    os.environ.pop("HYDRA_FULL_ERROR", None)

        return main

    return decorate


def fail(error: UserError) -> None:
    if first_process_ends():
        sys.exit(error.exit_code)
    print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
    sys.exit(error.exit_code)


def remove_unused_folder() -> None:
    """Remove the job's folder if it holds nothing but what Hydra put there."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if folder == Path.cwd():
        return  # this command has no folder of its own
    log_file = folder / f"{HydraConfig.get().job.name}.log"
    if set(folder.iterdir()) - {folder / ".hydra", log_file}:
        return
    for file in [*folder.glob(".hydra/*.yaml"), log_file]:
        file.unlink(missing_ok=True)
    below = [place for place in (folder / ".hydra", folder, *folder.parents) if place.exists()]
    with contextlib.suppress(OSError):  # something else lies there: it stays
        for empty in below[: below.index(Path.cwd())] if Path.cwd() in below else below[: below.index(folder) + 1]:
            empty.rmdir()


def flags_first(arguments: list[str]) -> list[str]:
    """The arguments with `-m` in front, where Hydra looks for it; UserError for flags that there are not."""
    several = [argument for argument in arguments if argument in ("-m", "--multirun")]
    arguments = several + [argument for argument in arguments if argument not in several]

    def refuse(message: str) -> None:
        raise UserError(f"{message}; settings are KEY=VALUE, flags are listed by --hydra-help")

    parser = get_args_parser()
    parser.error = refuse
    parser.parse_args(arguments)
    return arguments
