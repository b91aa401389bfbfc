"""The command line: Hydra, with every mistake of the user answered in one line.

Imports Hydra alone, so that `--help` and `--cfg job` answer at once.
"""

import contextlib
import difflib
import errno
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar10 import slurm
from cifar10.errors import UserError, cause_of
from cifar10.interruption import Interrupted, signals
from cifar10.memory import keep_freed_memory
from cifar10.processes import IS_FURTHER, SWEEP, first_process_ends, sweep_arguments
from cifar10.replay import check_overrides, fault, read_overrides
from cifar10.sweep import summarised

log = logging.getLogger(__name__)

# of a run that is resumed: how long and where it runs, and how it is watched
MAY_CHANGE = (
    *("trainer.max_epochs.", "trainer.checkpoint_every_n_steps.", "trainer.log_every_n_steps."),
    *("trainer.accelerator.", "trainer.devices.", "trainer.num_nodes.", "trainer.strategy.", "trainer.precision."),
    *("trainer.compile.", "trainer.benchmark.", "trainer.enable_progress_bar.", "trainer.enable_model_summary."),
    *("data.root.", "data.eval_batch_size.", "model.weights.", "callbacks.dashboard.", "hydra."),
)
CONF = Path(__file__).parent.parent / "conf"
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
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                os.environ[SWEEP] = HydraConfig.get().sweep.dir
            keep_freed_memory()
            log.info("loading PyTorch and Lightning")  # a few seconds
            if config_name == "train":
                sweep = HydraConfig.get().mode == RunMode.MULTIRUN
                slurm.note(arguments, HydraConfig.get().sweep.dir if sweep else HydraConfig.get().runtime.output_dir)
            try:
                with signals.watched():
                    return function(cfg)
            except Interrupted:
                remove_unused_folder()
                raise
            except (UserError, OSError) as error:
                if isinstance(error, OSError):
                    error = UserError(explain_os(error))
                remove_unused_folder()
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise error from error.__cause__  # Hydra goes on with the other jobs; it comes again at the end
                if SHOW_TRACEBACKS:
                    raise
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
                if before := slurm.folder_of_before(arguments):
                    sys.argv[1:] = [f"resume={before}"]
                sys.argv[1:] = [*resume_arguments(sys.argv[1:]), *sweep_arguments()]
                with summarised():
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
            except KeyboardInterrupt:  # before the job began
                sys.exit(128 + signal.SIGINT)
            except Exception as error:
                if first_process_ends():
                    sys.exit(1)
                known = isinstance(error, UserError | HydraException | OmegaConfBaseException | OSError)
                if isinstance(error, OSError):
                    error = UserError(explain_os(error))
                if SHOW_TRACEBACKS or (composed and not known):
                    raise  # a bug; before the job begins, every exception is about what the user wrote
                fail(error if isinstance(error, UserError) else UserError(explain(error, config_name)))
            finally:
                if not SHOW_TRACEBACKS:
                    del os.environ["HYDRA_FULL_ERROR"]

        return main

    return decorate


def quiet_threads(problem: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer fails in a thread when the disk is full, and again, for us to see, in the main one."""
    if not issubclass(problem.exc_type, OSError):
        threading.__excepthook__(problem)


def explain_os(error: OSError) -> str:
    """One line for what the operating system refuses."""
    what = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}{error.strerror}; free some space, then go on: python train.py resume=RUN"
    return f"{what}{cause_of(error)}"


def fail(error: UserError) -> None:
    if first_process_ends():
        sys.exit(error.exit_code)
    print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
    sys.exit(error.exit_code)


def remove_unused_folder() -> None:
    """Remove the job's folder if it holds nothing but what Hydra put there."""
    if HydraConfig.get().output_subdir is None:
        return  # this command has no folder of its own
    folder = Path(HydraConfig.get().runtime.output_dir)
    log_file = folder / f"{HydraConfig.get().job.name}.log"
    if set(folder.iterdir()) - {folder / ".hydra", log_file}:
        return
    for file in [*folder.glob(".hydra/*.yaml"), log_file]:
        file.unlink(missing_ok=True)
    below = [folder / ".hydra", folder, *folder.parents]
    with contextlib.suppress(OSError):  # something else lies there: it stays
        for empty in below[: below.index(Path.cwd())] if Path.cwd() in below else below[:2]:
            empty.rmdir()


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


def explain(error: Exception, config_name: str) -> str:
    """One line for what Hydra says in several."""
    if isinstance(error.__cause__, OSError):  # a log file that cannot be opened
        return explain_os(error.__cause__)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; {group} has: {', '.join(error.options)}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    message = " ".join(str(error).split())
    if key and "is not in struct" in str(cause):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(config_name)
        known = list(cfg) if "." not in key else list(flatten(cfg))
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        near = near or [name for name in known if name.endswith("." + key.rpartition(".")[2])]
        return f"{key}: no such setting" + (f"; did you mean {' or '.join(near)}?" if near else "; see --cfg job")
    return message


def flatten(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a configuration's leaves."""
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from flatten(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
