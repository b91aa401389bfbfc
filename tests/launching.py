"""Starts train.py in several processes, as Lightning, torchrun, srun or torchrun on two hosts do, and ends them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl

PROJECT = Path(__file__).parent.parent
TRAIN = str(PROJECT / "train.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start(folder: Path, *command: str, **environment: str) -> subprocess.Popen:
    """A command in a folder, in a process group of its own."""
    added = {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    inherited = {key: value for key, value in os.environ.items() if key != "CIFAR10_WEIGHTS"}
    return subprocess.Popen(command, cwd=folder, env=inherited | added, **pipes)


def finish(*processes: subprocess.Popen) -> subprocess.CompletedProcess:
    """Wait for all of them; the exit code is that of the first, unless it is 0, the output that of all."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    code = next((process.returncode for process in processes if process.returncode), 0)
    return subprocess.CompletedProcess([], code, *("".join(texts) for texts in zip(*outputs, strict=True)))


def by_lightning(folder: Path, *arguments: str, devices: int = 2) -> subprocess.CompletedProcess:
    given = [*arguments, "trainer.accelerator=cpu", f"trainer.devices={devices}"]
    return finish(start(folder, sys.executable, TRAIN, *given))


def by_torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    given = [*arguments, "trainer=ddp", "trainer.accelerator=cpu"]
    return finish(start(folder, *TORCHRUN, "--nproc_per_node=2", f"--master_port={free_port()}", TRAIN, *given))


def by_srun(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Two processes with the variables that srun sets."""
    job = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(free_port())}
    given = [*arguments, "trainer=ddp", "trainer.accelerator=cpu"]
    tasks = ({"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1))
    return finish(*(start(folder, sys.executable, TRAIN, *given, **job, **task) for task in tasks))


def on_two_hosts(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """One process on each of two hosts: network namespaces of this machine."""
    given = [*arguments, "trainer=ddp", "trainer.num_nodes=2", "trainer.accelerator=cpu"]
    with two_hosts() as hosts:
        rendezvous = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=10.77.0.1", "--master_port=29511"]
        return finish(
            *(
                start(folder, *into, *TORCHRUN, *rendezvous, f"--node_rank={rank}", TRAIN, *given, **interface)
                for rank, (into, interface) in enumerate(hosts)
            )
        )


@contextlib.contextmanager
def two_hosts() -> Iterator[list[tuple[list[str], dict[str, str]]]]:
    """Of each, the command that leads there and the environment; they see each other, and nothing else."""
    names = [f"cifar10-{os.getpid()}-{number}" for number in (1, 2)]
    links = [f"c{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
        one, two = ([link, "netns", name] for link, name in zip(links, names, strict=True))
        ip("link", "add", *one, "type", "veth", "peer", "name", *two)
        for number, (name, link) in enumerate(zip(names, links, strict=True), 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", link)
            for device in ("lo", link):
                ip("-n", name, "link", "set", device, "up")
        yield [
            (["ip", "netns", "exec", name], {"GLOO_SOCKET_IFNAME": link})
            for name, link in zip(names, links, strict=True)
        ]
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


def can_make_hosts() -> bool:
    """Whether network namespaces can be made here: it takes root and iproute2."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with two_hosts():
            return True
    except subprocess.CalledProcessError:
        return False


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Signals(pl.Callback):
    """Sends a signal at certain steps, each only once in a run. signals: (step, rank or None for all, signal)."""

    changes_training = False

    def __init__(self, folder: str, signals: list[object]):
        self.folder, self.signals = Path(folder), signals

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        for step, rank, signum in self.signals:
            sent = self.folder / f"{step}"
            own = trainer.global_rank == (rank or 0)
            if trainer.global_step == step and own and not sent.exists():
                self.folder.mkdir(exist_ok=True)
                sent.touch()
                os.killpg(0, signum) if rank is None else os.kill(os.getpid(), signum)


class EndsSlowly(pl.Callback):
    """Takes longer over an exception than Lightning's observer does to see that another process has died."""

    changes_training = False

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        time.sleep(6)
