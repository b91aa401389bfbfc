"""Slurm: a job that is preempted is queued again, as Lightning has it, and goes on in the folder where it was.

Lightning alone saves a checkpoint in mid-step and looks for it in the new job's own new folder.
"""

import hashlib
import logging
import os
import subprocess
from pathlib import Path

log = logging.getLogger(__name__)


def job() -> str | None:
    """The number of the job that this process belongs to; None outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def note_file(arguments: list[str]) -> Path:
    """Where it is noted in which folder a command of this job works; a job may have several commands."""
    return Path("outputs") / ".slurm" / f"{job()}-{hashlib.sha256(repr(arguments).encode()).hexdigest()[:12]}"


def note(arguments: list[str], folder: str | Path) -> None:
    if job() is not None and os.environ.get("SLURM_PROCID", "0") == "0":
        file = note_file(arguments)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(folder))


def folder_of_before(arguments: list[str]) -> Path | None:
    """The folder in which this command had begun before the job was queued again, if it was."""
    if job() is None or os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or not note_file(arguments).is_file():
        return None
    folder = Path(note_file(arguments).read_text())
    begun = any((folder / name).is_file() for name in (".hydra/overrides.yaml", "multirun.yaml"))
    return folder if begun else None


def requeue() -> None:
    """Have Slurm queue this job again."""
    try:
        code = subprocess.call(["scontrol", "requeue", job()])
    except OSError as error:
        code = error.strerror
    if code == 0:
        log.info(f"Slurm job {job()} is queued again")
    else:
        log.warning(f"Slurm job {job()} could not be queued again ({code})")
