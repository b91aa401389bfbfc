"""The jobs of a sweep side by side: each has its share of the cores and its GPUs, and none outlives the sweep.

The command that starts a sweep makes a folder with a file for each job that may run at a time, named after its GPUs. A
job's process locks one that is free and keeps it until it ends, whichever launcher has started it. Nothing is shared
out on Slurm, which does so itself. Imports nothing heavy.
"""

import contextlib
import itertools
import logging
import math
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from cifar10.machine import CORES, cores
from cifar10.processes import is_worker
from cifar10.run_folder import overrides_of
from cifar10.shell import shown
from cifar10.signals import signals
from cifar10.untrusted import key_of

log = logging.getLogger(__name__)

PLACES = "CIFAR10_PLACES"  # the environment variable in which jobs find the folder
ALIVE = "alive"  # the file in it that the command that made it has locked
CODE = (Path(__file__).parents[2], Path(__file__).parent / "plugins")  # on the path of every job's process
WEEK = 7 * 24 * 60  # minutes


class ShareMachine(Callback):
    """Shares out the machine before a launcher starts several jobs at a time; Hydra calls it."""

    held = contextlib.ExitStack()  # until this command ends
    own: FileLock | None = None  # the place of this process

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        launcher = config.hydra.launcher._target_.rpartition(".")[2]
        if is_worker or launcher == "BasicLauncher":
            return
        os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, CODE), *filter(None, [os.environ.get("PYTHONPATH")])])
        if "SLURM_JOB_ID" in os.environ:
            signals.watch_requeue()
        with flag_override(config.hydra, ["readonly", "struct"], False):
            if launcher != "SlurmLauncher":
                share_out(config)
            elif config.hydra.launcher.cpus_per_task:  # which srun, since Slurm 22.05, wants to be told again
                os.environ["SRUN_CPUS_PER_TASK"] = str(config.hydra.launcher.cpus_per_task)
            if launcher in ("LocalLauncher", "SlurmLauncher"):
                log.info(
                    f"each job's output is in its {shown(config.hydra.sweep.dir)}/NUMBER/{config.hydra.job.name}.log"
                )
            else:  # here, where the lines of all mix
                line = '"%(asctime)s  job ${hydra.job.num}  %(message)s"'
                config.hydra.overrides.hydra.append(f"hydra.job_logging.formatters.simple.format={line}")
            if launcher == "LocalLauncher" and not is_given(config, "hydra.launcher.timeout_min"):
                config.hydra.launcher.timeout_min = WEEK  # not an hour


def share_out(config: DictConfig) -> None:
    """Make the folder, and divide the cores."""
    launcher, sweeper = config.hydra.launcher, config.hydra.sweeper
    groups = [] if config.trainer.accelerator == "cpu" else group(visible_gpus(), config.trainer.devices)
    at_once = launcher.get("n_jobs") or 0
    at_once = at_once if at_once > 0 else len(groups) or max(2, cores() // 4)
    at_once = min(at_once, sweeper.get("n_jobs") or count_jobs(config))
    if "n_jobs" in launcher:
        launcher.n_jobs = at_once
    share = max(1, cores() // at_once)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    folder = Path(tempfile.mkdtemp(prefix="cifar10-sweep-"))
    ShareMachine.held.callback(shutil.rmtree, folder, ignore_errors=True)
    ShareMachine.held.enter_context(FileLock(folder / ALIVE))
    for number, gpus in zip(range(at_once), itertools.cycle(groups or [""])):
        (folder / f"place{number}_{gpus}").touch()
    os.environ.update({CORES: str(share), PLACES: str(folder)})
    each = f"{share} core{'s' * (share > 1)}" + (f" and GPU {' or '.join(dict.fromkeys(groups))}" if groups else "")
    log.info(f"at most {at_once} job{'s' * (at_once > 1)} at a time, with {each} each")


def visible_gpus() -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].replace(" ", "").split(",") if name]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        lines = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
        return [str(number) for number in range(lines.count("UUID: GPU"))]
    return []


def group(gpus: list[str], devices: object) -> list[str]:
    """The GPUs of each job: as many as `trainer.devices` says, or all."""
    size = devices if isinstance(devices, int) and devices > 0 else len(gpus)
    return [",".join(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, max(size, 1)) if gpus]


def count_jobs(config: DictConfig) -> float:
    """How many jobs a grid has; infinity for a sweeper that is not Hydra's own."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return math.inf
    params = (f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items())
    swept = OverridesParser.create().parse_overrides([*overrides_of(config.hydra), *params])
    return math.prod(sum(1 for _ in one.sweep_iterator()) for one in swept if one.is_sweep_override())


def is_given(config: DictConfig, key: str) -> bool:
    return any(key_of(override) == key for override in overrides_of(config.hydra, "hydra"))


def take_place() -> None:
    """In the process of a job: wait for a place, with its GPUs, and end when the command that made it ends.

    Call it before torch is imported. A process keeps its place for its later jobs, as CUDA keeps its GPU.
    """
    folder = Path(os.environ.get(PLACES, ""))
    if PLACES not in os.environ or ShareMachine.own is not None:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all at once, and ends the sweep
    threading.Thread(target=end_with, args=(folder / ALIVE,), daemon=True).start()
    for attempt in itertools.count():
        for place in sorted(folder.glob("place*")):
            lock = FileLock(place)
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                ShareMachine.own = lock
                if gpus := place.name.partition("_")[2]:
                    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
                return
        if attempt == 0:
            log.info("waiting for another job to end")
        time.sleep(0.5)


def end_with(file: Path) -> None:
    """Kill this process as soon as no other one has locked the file."""
    while file.exists():
        with contextlib.suppress(Timeout), FileLock(file, blocking=False):
            break
        time.sleep(0.5)
    shutil.rmtree(file.parent, ignore_errors=True)  # which a killed command has left
    os.kill(os.getpid(), signal.SIGKILL)
