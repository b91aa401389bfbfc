"""Several processes that train together: rank 0 composes, speaks and writes, and hands each job to the others.

Lightning starts the others on one machine: they find the job in a file. torchrun and srun start all of them: the job
goes through the store in which torch.distributed lets them find one another. No other process reads the command line,
so that there is one folder, one search and one decision of what to resume. Imports no torch.
"""

import contextlib
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cifar10.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as torchrun, Lightning and srun set them
is_worker = any(os.environ.get(name, "0") != "0" for name in RANKS)  # not rank 0, which speaks and writes for all
PARENT = os.getppid()
JOB = "CIFAR10_JOB"  # the environment variable that names the job's file to the processes that Lightning starts


def started_together() -> int:
    """How many processes torchrun or srun has started, this one included; 0 if neither has."""
    if "RANK" in os.environ:
        return int(os.environ.get("WORLD_SIZE", "1"))
    by_srun = "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    return int(os.environ.get("SLURM_NTASKS", "0")) if by_srun else 0


def started_here() -> int:
    """How many of them run on this host; 0 if neither has started any, or it is not known."""
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    return int(here) if here and started_together() else 0


class Crew:
    """The processes that torchrun or srun has started, and the number of the job that they are at."""

    def __init__(self) -> None:
        self.size, self.number = started_together(), 0

    @functools.cached_property
    def store(self) -> "Store":
        """Connects them; rank 0 waits here until all have started."""
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if "RANK" not in os.environ:
            from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

            slurm = SLURMEnvironment()
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
        self.rank = int(os.environ.get("RANK") or os.environ["SLURM_PROCID"])
        store, *_ = next(rendezvous("env://", self.rank, self.size))
        return PrefixStore(f"cifar10/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)

    def begin(self, job: str) -> None:
        """Rank 0 hands out the next job; ends the program if the others are not ready for it within a minute."""
        if self.number:
            others = [f"{self.number - 1}/done/{rank}" for rank in range(1, self.size)]
            try:
                self.store.wait(others, timedelta(minutes=1))
            except RuntimeError:
                raise SystemExit("error: the other processes are still at the job before; resume the sweep") from None
        self.store.set(str(self.number), job)

    def end(self) -> None:
        self.store.set(f"{self.number}/ended", "")
        self.number += 1

    def jobs(self) -> Iterator[str]:
        """The jobs as another process gets them, until rank 0 has no more, or is gone."""
        while job := self.next_job():
            yield job
            self.store.set(f"{self.number}/done/{self.rank}", "")
            self.number += 1

    def next_job(self) -> str:
        with contextlib.suppress(RuntimeError):  # rank 0 is gone, and the store with it
            return self.store.get(str(self.number)).decode()
        return ""

    def leader_has_ended(self) -> bool:
        try:
            return self.store.check([f"{self.number}/ended"])
        except RuntimeError:
            return True


crew = Crew()


@contextlib.contextmanager
def led(settings: dict) -> Iterator[None]:
    """Have the other processes do this job too, with these settings, in the current folder."""
    job = json.dumps({"settings": settings, "folder": os.getcwd()})
    if crew.size > 1:
        crew.begin(job)
        try:
            yield
        finally:
            crew.end()
        return
    environment = dict(os.environ)
    with tempfile.NamedTemporaryFile("w", prefix="cifar10-", suffix=".json") as file:
        file.write(job)
        file.flush()
        os.environ[JOB] = file.name
        try:
            yield
        finally:  # as if it had been alone: a sweep's next job starts its own processes
            os.environ.clear()
            os.environ.update(environment)
            torch = sys.modules.get("torch")
            if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def dismiss() -> None:
    """Rank 0 has no more jobs for the others."""
    if crew.size > 1 and not is_worker:
        with contextlib.suppress(RuntimeError):
            crew.store.set(str(crew.number), "")


def jobs() -> Iterator[dict]:
    """The settings of one job after another, as rank 0 hands them out; the current folder becomes rank 0's."""
    for job in crew.jobs() if JOB not in os.environ else [Path(os.environ[JOB]).read_text()]:
        job = json.loads(job)
        os.chdir(job["folder"])
        yield job["settings"]


def leader_ends(seconds: float = 5.0) -> bool:
    """Whether rank 0 ends this job too, soon: it reports why."""
    until = time.monotonic() + seconds
    while not (ended := has_ended()) and time.monotonic() < until:
        time.sleep(0.05)
    return ended


def has_ended() -> bool:
    if JOB in os.environ:
        return os.getppid() != PARENT or not Path(os.environ[JOB]).exists()
    return crew.leader_has_ended()


def check_processes(devices: int, num_nodes: int) -> None:
    """UserError unless as many processes have been started as are to train."""
    if crew.size > 1 and crew.size != devices * num_nodes:
        raise UserError(
            f"trainer.devices={devices} trainer.num_nodes={num_nodes}: {crew.size} processes have been started; devices"
            " is their number on each host, num_nodes the number of hosts"
        )
    if num_nodes > 1 and crew.size <= 1:
        raise UserError(f"trainer.num_nodes={num_nodes}: start it with torchrun or srun, see docs/cluster.md")
