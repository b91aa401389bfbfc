"""The command line: Hydra, with every mistake of the user answered in one line.

Imports Hydra alone, so that `--help` and `--cfg job` answer at once.
"""

import contextlib
import difflib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar10.errors import UserError, cause_of
from cifar10.jobs import resume_sweep, resumed_sweep, take_up
from cifar10.memory import keep_freed_memory
from cifar10.sweep import summarised

log = logging.getLogger(__name__)

CONF = Path(__file__).parent.parent / "conf"
SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def command(config_name: str) -> Callable:
    """Decorate a function of the composed configuration as the program's main function.

    What it raises as UserError ends the program with that line and exit code, and an untouched run folder is removed.
    HYDRA_FULL_ERROR=1 shows tracebacks instead.
    """

    def decorate(function: Callable[[DictConfig], object]) -> Callable[[], None]:
        composed = False

        @functools.wraps(function)
        def job(cfg: DictConfig) -> object:
            nonlocal composed
            composed = True
            keep_freed_memory()
            log.info("loading PyTorch and Lightning")  # a few seconds
            try:
                result = take_up(cfg)  # of a sweep's job that has finished before
                return function(cfg) if result is None else result
            except Exception as caught:
                if not is_known(caught):  # a bug
                    if HydraConfig.get().mode == RunMode.MULTIRUN:
                        log.exception("this job has crashed")  # at its end the sweep shows the first one only
                    raise
                remove_unused_folder()
                if SHOW_TRACEBACKS:
                    raise
                error = in_a_line(caught, config_name)
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise error from caught  # Hydra goes on with the other jobs, and raises this again at the end
                fail(error)

        @functools.wraps(function)
        def main() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands us the exception itself
            try:
                arguments = flags_first(sys.argv[1:])
                sweep = resumed_sweep(arguments)
                sys.argv[1:] = resume_arguments(arguments) if sweep is None else resume_sweep(sweep, arguments)
                with summarised(resumed=sweep is not None):
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
            except Exception as error:
                if SHOW_TRACEBACKS or (composed and not is_known(error)):
                    raise  # a bug; before the job begins, every exception is about what the user wrote
                fail(in_a_line(error, config_name))
            finally:
                if not SHOW_TRACEBACKS:
                    del os.environ["HYDRA_FULL_ERROR"]

        return main

    return decorate


def fail(error: UserError) -> None:
    print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
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


def resume_arguments(arguments: list[str]) -> list[str]:
    """Turn `resume=RUN` into that run's own overrides, folder and last checkpoint; later arguments win.

    Raises UserError if the folder is no run or has no checkpoint.
    """
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not folders or folders[-1] in ("", "null"):
        return arguments
    folder = Path(folders[-1])
    overrides, checkpoint = folder / ".hydra" / "overrides.yaml", folder / "checkpoints" / "last.ckpt"
    for needed in (overrides, checkpoint):
        if not needed.is_file():
            raise UserError(f"resume={folder}: not a run that can be resumed, {needed} does not exist")
    own = [override for override in OmegaConf.load(overrides) if not override.startswith(("resume=", "hydra."))]
    given = [argument for argument in arguments if not argument.startswith("resume=")]
    keys = {argument.partition("=")[0].lstrip("+~") for argument in given}
    own = [override for override in own if override.partition("=")[0].lstrip("+~") not in keys]
    # The run's .hydra/ stays as it was made: a mistake in `given` must not change what the run says of itself.
    run = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
    return [*own, *given, *run, "hydra.mode=RUN"]  # whatever the experiment says: it is one run


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


def is_known(error: Exception) -> bool:
    """Whether it speaks of what the user wrote, or of the machine; whatever else a job raises is a bug."""
    kinds = UserError | HydraException | OmegaConfBaseException | OSError | MemoryError
    names = (kind.__name__ for kind in type(error).__mro__)  # Lightning's, which is not imported here
    return isinstance(error, kinds) or lacks_memory(error) or "MisconfigurationException" in names


def lacks_memory(error: Exception) -> bool:
    """Whether it is torch, on any device, or NumPy, that gets no more memory."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def in_a_line(error: Exception, config_name: str) -> UserError:
    return error if isinstance(error, UserError) else UserError(explain(error, config_name))


def explain(error: Exception, config_name: str) -> str:
    """One line for what Hydra, the file system or torch say in several."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; {group} has: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        way = "write KEY=VALUE, text with signs in it as 'KEY=\"TEXT\"'"
        return f"{one_line(error.override)}: no setting that Hydra can read; {way}"
    if lacks_memory(error):
        return f"not enough memory ({cause_of(error)}); try a smaller data.batch_size, data.image_size or model"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {cause_of(error)}; name a folder that can be written, as with hydra.run.dir=FOLDER"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    if key and "is not in struct" in str(cause):
        return f"{key}: {unknown(key, config_name)}"
    message, reason = "" if isinstance(error, AssertionError) else one_line(error), one_line(error.__cause__)
    message = message if reason in message else f"{message}: {reason}"
    if message.startswith("Config group override"):
        message = f"{' '.join(choices())}: {message}"
    message = message or f"{type(error).__name__} in what Hydra makes of these settings; see --hydra-help"
    return f"{key}: {message}" if key and key not in message else message


def one_line(error: object) -> str:
    """Its words without those that Hydra and OmegaConf add for programmers."""
    added = ("full_key:", "object_type=", "reference_type=", "See ")
    lines = (line.strip() for line in ("" if error is None else str(error)).splitlines())
    return " ".join(line for line in lines if not line.startswith(added))


def choices() -> list[str]:
    """The command line's choices of groups."""
    return [argument for argument in sys.argv[1:] if (CONF / argument.partition("=")[0].lstrip("+")).is_dir()]


def unknown(key: str, config_name: str) -> str:
    """What to do about a key that the configuration lacks, as the command line has it."""
    for argument in sys.argv[1:]:
        removed = argument.partition("=")[0]
        if removed.startswith("~") and f"{key}.".startswith(f"{removed[1:]}."):
            return f"is needed, but {removed} removes it"
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(config_name, [choice for choice in choices() if not any(sign in choice for sign in ",()")])
    known = [name for name in (cfg if "." not in key else flatten(cfg)) if name != key]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    near = near or [name for name in known if name.endswith("." + key.rpartition(".")[2])]
    return "no such setting" + (f"; did you mean {' or '.join(near)}?" if near else "; see --cfg job")


def flatten(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a configuration's leaves."""
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from flatten(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
