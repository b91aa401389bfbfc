"""Slurm: a preempted job is requeued, and resumes the run that it had begun.

Lightning's own handler saves a checkpoint in mid-step and looks for it in the new job's own folder.
"""

import hashlib
import logging
import os
import subprocess
from pathlib import Path

from hydra.conf import HydraConf
from hydra.types import RunMode

from cifar10.run_folder import RunFolder
from cifar10.sweeps.jobs import is_sweep

log = logging.getLogger(__name__)


def job() -> str | None:
    """The id of the job that this process belongs to; None outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def note_file(arguments: list[str]) -> Path:
    """The file that records the folder of one of this job's commands."""
    return Path("outputs") / ".slurm" / f"{job()}-{hashlib.sha256(repr(arguments).encode()).hexdigest()[:12]}"


def note(arguments: list[str], hydra: HydraConf) -> None:
    """Record which folder the command with these arguments uses."""
    if job() is not None:
        file = Path(hydra.runtime.cwd) / note_file(arguments)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(hydra.sweep.dir if hydra.mode == RunMode.MULTIRUN else hydra.runtime.output_dir)


def earlier_folder(arguments: list[str]) -> Path | None:
    """The folder in which this command began before the job was requeued, if it was."""
    if job() is None or os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or not note_file(arguments).is_file():
        return None
    folder = Path(note_file(arguments).read_text())
    return folder if RunFolder(folder).overrides.is_file() or is_sweep(folder) else None


def requeue() -> None:
    """Have Slurm requeue this job."""
    try:
        code = subprocess.call(["scontrol", "requeue", str(job())])
    except OSError as error:
        code = error.strerror
    if code == 0:
        log.info(f"Slurm job {job()} has been requeued")
    else:
        log.warning(f"Slurm job {job()} could not be requeued ({code})")
