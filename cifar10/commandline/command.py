"""The command line: Hydra, with every user mistake answered in one line.

Imports nothing heavier than Hydra, so that `--help` and `--cfg job` answer at once.
"""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar10.commandline import slurm
from cifar10.commandline.claim import claims_released, remove_if_empty
from cifar10.commandline.error_messages import CONF, check_added, fail, in_a_line, is_known, quiet_threads
from cifar10.commandline.lightning_log import filter_lightning
from cifar10.commandline.resume import STORED, resume_run, resumed_folder, split
from cifar10.errors import FolderBusy, UserError, one_line
from cifar10.machine import keep_freed_memory
from cifar10.processes import dismiss, is_worker, jobs, leader_ends, led
from cifar10.run_folder import RunFolder
from cifar10.shell import quoted
from cifar10.signals import REQUEUE, Interrupted, signals
from cifar10.sweeps.jobs import is_sweep, resume_sweep, taken_up
from cifar10.sweeps.launchers import ShareMachine, take_place
from cifar10.sweeps.summary import summarised

log = logging.getLogger(__name__)

TRACEBACKS = "CIFAR10_TRACEBACKS"  # an environment variable: whether the user of this command set HYDRA_FULL_ERROR=1
PLUGINS = str(Path(__file__).parents[1] / "sweeps" / "plugins")  # holds the namespace package in which Hydra looks
# relative to where the command was started
PATHS = ("data.root", "data_root", "model.weights", "callbacks.distillation.teacher", "resume")


class Command:
    """A command: from the arguments to the function of the composed configuration, and its errors.

    A UserError from the function ends the program with its line and exit code, and an unused run folder is removed.
    HYDRA_FULL_ERROR=1 shows tracebacks instead.
    """

    runs_here = False  # in this process; a launcher calls `job` in others

    def __init__(self, config_name: str, function: Callable[[DictConfig], object]):
        self.config_name, self.function = config_name, function
        self.script, self.arguments = os.path.abspath(sys.argv[0]), sys.argv[1:]
        self.composed = False  # until then, every exception is about what the user wrote
        asked = os.environ.setdefault(TRACEBACKS, os.environ.get("HYDRA_FULL_ERROR", "0"))
        self.tracebacks = asked == "1"

    def run(self) -> None:
        """What `python train.py ...` does."""
        if is_worker:
            return self.follow()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands us the exception itself
        Command.runs_here = True
        sys.path.append(PLUGINS)
        set_up_process()
        try:
            resumed = self.set_arguments()
            with claims_released(), summarised(resumed), ShareMachine.held, signals.watched():
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=self.config_name)(self.job)()
        except KeyboardInterrupt:  # before the job began
            sys.exit(128 + signal.SIGINT)
        except Interrupted as stopped:
            if stopped.signum in REQUEUE:
                slurm.requeue()
            raise
        except Exception as error:
            if self.tracebacks or (self.composed and not is_known(error)):
                raise
            fail(in_a_line(error, self.config_name))
        finally:
            dismiss()

    def follow(self) -> None:
        """What every process but rank 0 does: the jobs that rank 0 composes, in silence; only training has any."""
        if self.config_name != "train":
            return
        speaks = logging.StreamHandler()
        speaks.setLevel(logging.ERROR)
        logging.basicConfig(handlers=[speaks])
        filter_lightning()
        keep_freed_memory()
        for settings in jobs():
            cfg = OmegaConf.create(settings)
            OmegaConf.set_struct(cfg, True)
            try:
                with signals.watched():
                    self.function(cfg)
            except Exception as error:
                if leader_ends():
                    continue
                if self.tracebacks or not is_known(error):
                    raise
                fail(in_a_line(error, self.config_name))

    def set_arguments(self) -> bool:
        """Put into `sys.argv` what Hydra is meant to read; returns whether a sweep is resumed."""
        before = slurm.earlier_folder(self.arguments)
        flags, settings = split([f"resume={quoted(before)}"] if before else self.arguments)
        folder = resumed_folder(settings) if self.config_name == "train" else None
        sweep = folder is not None and is_sweep(folder)
        if folder is not None:
            flags = [flag for flag in flags if flag not in ("-m", "--multirun")]  # the folder says which it is
            if not flags:  # as --cfg job, whose output may go to a file
                print(f"resuming {folder}: reading its settings", flush=True)  # takes seconds, before there is a log
            settings = (resume_sweep if sweep else resume_run)(folder, settings)
            flags += [] if sweep else ["--config-name", STORED]
        settings = ["logger=[]" if setting == "logger=null" else setting for setting in settings]  # as Hydra has it
        sys.argv[1:] = [*flags, *settings]
        return sweep

    def job(self, cfg: DictConfig) -> object:
        """One run, or one job of a sweep; Hydra calls it with the composed configuration."""
        if is_worker:  # a launcher has started all processes of this one job
            return self.follow()
        self.composed, own = True, HydraConfig.get()
        if not Command.runs_here:
            set_up_process()
            take_place()
            # this script is what Lightning starts for each additional device
            sys.argv, sys.modules["__main__"].__spec__ = [self.script], None
        sweep, keep = own.mode == RunMode.MULTIRUN, bool(cfg.get("resume"))
        try:
            check_added(cfg, own, self.config_name)
            if self.config_name == "train" and Command.runs_here:
                slurm.note(self.arguments, own)
            if own.job.chdir:
                make_absolute(cfg, own.runtime.cwd)
            with signals.watched(), taken_up(cfg) as result:
                if result is not None:
                    return result
                if sweep:
                    gc.collect()  # the images of the job before, which cycles of references keep: 150 MB
                log.info("loading PyTorch and Lightning")  # takes a few seconds
                filter_lightning()
                if self.config_name != "train":
                    return self.function(cfg)
                with led(cast(dict, OmegaConf.to_container(cfg, resolve=True))):
                    return self.function(cfg)
        except Interrupted as stopped:
            if stopped.signum in REQUEUE and not Command.runs_here:
                slurm.requeue()
            raise
        except Exception as error:
            keep = keep or isinstance(error, FolderBusy) or not is_known(error)
            if not is_known(error) and sweep:  # a bug
                log.exception("this job has crashed")  # at its end the sweep shows only the first one
            if Command.runs_here and (self.tracebacks or not is_known(error)):
                raise
            if not is_known(error):
                raise UserError(f"{type(error).__name__}: {one_line(error)}") from None  # which can be pickled
            if sweep and signals.received is not None:
                raise Interrupted(signals.received) from None
            if sweep:
                raise in_a_line(error, self.config_name) from None  # Hydra continues, and raises it again at the end
            fail(in_a_line(error, self.config_name))
        finally:
            if not keep:
                remove_unused_folder(own)


def set_up_process() -> None:
    logging.raiseExceptions = False  # a log file that cannot be written is no reason for a traceback
    threading.excepthook = quiet_threads
    keep_freed_memory()


def make_absolute(cfg: DictConfig, start: str) -> None:
    """Make paths mean what they meant where the command was started, before Hydra changed directory."""
    for key in PATHS:
        path = OmegaConf.select(cfg, key)
        if isinstance(path, str) and not path.startswith("~"):
            OmegaConf.update(cfg, key, os.path.join(start, path))


def remove_unused_folder(own: HydraConf) -> None:
    """Remove from the job's folder what Hydra put there, if it holds nothing else; own: Hydra's configuration."""
    folder = Path(own.runtime.output_dir)
    if folder == Path(own.runtime.cwd):
        return
    settings, log_file = folder / (own.output_subdir or ".hydra"), folder / f"{own.job.name}.log"
    run = RunFolder(folder)
    if set(folder.glob("*")) - {settings, log_file, run.lock, run.unreadable, run.duplicates}:
        return
    for file in [*settings.glob("*.yaml"), log_file]:
        file.unlink(missing_ok=True)
    for empty in [settings] + [folder] * (own.mode == RunMode.MULTIRUN):  # a run's folder goes with its lock
        remove_if_empty(empty)
