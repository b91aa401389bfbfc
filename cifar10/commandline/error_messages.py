"""What went wrong, in one line: which errors are the user's or the machine's, and how they are worded.

Imports nothing heavier than Hydra.
"""

import contextlib
import difflib
import errno
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar10.errors import UserError, cause_of, one_line
from cifar10.run_folder import overrides_of

EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # by launcher
DIED = ("TerminatedWorkerError", "UncompletedJobError", "WorkerCrashedError")  # joblib's, submitit's, Ray's
CONF = Path(__file__).parents[2] / "conf"


def is_known(error: Exception) -> bool:
    """Whether it is about what the user wrote, or the machine; anything else that a job raises is a bug."""
    kinds = UserError | HydraException | OmegaConfBaseException | OSError | MemoryError
    names = {kind.__name__ for kind in type(error).__mro__}  # of packages that are not imported here
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    loggers = packages & {"mlflow", "sqlalchemy", "wandb"}  # whose errors are about a login, a server or a disk
    expected = isinstance(error, kinds) or lacks_memory(error) or lost_process(error)
    return expected or "MisconfigurationException" in names or bool(loggers)


def lacks_memory(error: Exception) -> bool:
    """Whether torch, on any device, or NumPy has run out of memory."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def lost_process(error: Exception) -> bool:
    """Whether another process of this training has gone, as gloo and NCCL say it."""
    names = (kind.__name__ for kind in type(error).__mro__)
    words = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe")
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error) and any(w in str(error).lower() for w in words)
    return gloo or "DistError" in names


def in_a_line(error: Exception, config_name: str) -> UserError:
    return error if isinstance(error, UserError) else UserError(explain(error, config_name))


def fail(error: UserError) -> NoReturn:
    """End the program with the error's line and exit code."""
    print("error:", one_line(error), file=sys.stderr)
    sys.exit(error.exit_code)


def explain(error: Exception, config_name: str) -> str:
    """One line for what Hydra, the file system or torch says in several."""
    if isinstance(error.__cause__, OSError):  # a log file that cannot be opened
        return explain(error.__cause__, config_name)
    group, _, choice = str(getattr(error, "missing_cfg_file", None) or "").rpartition("/")
    if group:  # a MissingConfigException; without options if it is one of several choices
        known = getattr(error, "options", None) or sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        if group == "hydra/launcher" and choice in EXTRAS:
            return f"{group}={choice}: needs another package; pip install -e '.[{EXTRAS[choice]}]'"
        return f"{group}={choice}: no such choice; {group} has: {', '.join(known)} (--config-dir FOLDER adds more)"
    if isinstance(error, OverrideParseException):
        way = "write KEY=VALUE, and text with special characters as 'KEY=\"TEXT\"'"
        return f"{without_hints(error.override)}: not a setting that Hydra can read; {way}"
    if any(kind.__name__ in DIED for kind in type(error).__mro__):
        return "a job's process has died, as when memory runs out; what has not finished goes on with resume=SWEEP"
    if lacks_memory(error):
        smaller = "images=N" if config_name == "explore" else "data.batch_size, data.image_size or model"
        return f"not enough memory ({cause_of(error)}); try a smaller {smaller}"
    if lost_process(error):
        return f"lost another process of this training ({cause_of(error)}): it has ended, or its host; resume the run"
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        trains = config_name == "train"
        way = f"name a writable folder: {'hydra.run.dir' if trains else 'output'}=FOLDER"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way = f"free some space, then {'resume the run' if trains else 'try again'}"
        return f"{what}{cause_of(error)}; {way}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    if key and "is not in struct" in str(cause):
        return f"{key}: {unknown(key, config_name)}"
    message, reason = "" if isinstance(error, AssertionError) else without_hints(error), without_hints(error.__cause__)
    message = message if reason in message else f"{message}: {reason}"
    if found := re.match(r"Could not override '(hydra\.sweeper\.\w+)'", message):
        return f"{found[1]}: {unknown(found[1], config_name)}"
    if message.startswith("Config group override"):
        message = f"{' '.join(choices())}: {message}"
    if "_SWEEP" in message and "BasicSweeper" in message:
        message = "an interval is something to search; add sweep=optuna or sweep=random"
    message = message or f"{type(error).__name__} while Hydra composed these settings; see --hydra-help"
    return f"{key}: {message}" if key and key not in message else message


def without_hints(error: object) -> str:
    """The message without what Hydra and OmegaConf add for programmers."""
    added = ("full_key:", "object_type=", "reference_type=", "See ")
    lines = (line.strip() for line in ("" if error is None else str(error)).splitlines())
    return " ".join(line for line in lines if not line.startswith(added))


def choices() -> list[str]:
    """The group choices on the command line."""
    return [argument for argument in sys.argv[1:] if (CONF / argument.partition("=")[0].lstrip("+")).is_dir()]


def unknown(key: str, config_name: str) -> str:
    """What to do about a key on the command line that the configuration lacks."""
    if key == "ckpt_path" and config_name == "train":
        return "no such setting; resume=RUN resumes a run"
    for argument in sys.argv[1:]:
        removed = argument.partition("=")[0]
        if removed.startswith("~") and f"{key}.".startswith(f"{removed[1:]}."):
            return f"is needed, but {removed} removes it"
    if key.startswith("hydra.sweeper."):
        return "no such setting of this sweeper; a search, such as sweep=optuna, has n_trials, objective and others"
    running = GlobalHydra.instance().is_initialized()
    with contextlib.nullcontext() if running else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(
            config_name, [choice for choice in choices() if not any(sign in choice for sign in ",(){}")]
        )
    settings = [name for name in flatten(cfg) if name != key and not name.endswith("_target_")]
    near = [name for name in settings if name.endswith("." + key.rpartition(".")[2])]  # in another section
    known = [str(name) for name in cfg if name != key] if "." not in key else settings
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.85)
    near = near or difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return "no such setting" + (f"; did you mean {' or '.join(near)}?" if near else "; see --cfg job")


def check_added(cfg: DictConfig, hydra_cfg: HydraConf, config_name: str) -> None:
    """UserError for a setting that was added at the top level, where nothing would read it."""
    for override in overrides_of(hydra_cfg):
        key = override.partition("=")[0]
        if key.startswith("+") and re.fullmatch(r"\w+", key.lstrip("+")) and key.lstrip("+") in cfg:
            key = key.lstrip("+")
            primary = OmegaConf.load(CONF / f"{config_name}.yaml")
            if key not in primary and key not in hydra_cfg.runtime.choices:
                raise UserError(f"{key}: {unknown(key, config_name)}")


def flatten(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a configuration's leaves."""
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from flatten(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def quiet_threads(problem: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer fails in a thread when the disk is full, and again in the main one, where we report it."""
    if not issubclass(problem.exc_type, OSError):
        threading.__excepthook__(problem)
