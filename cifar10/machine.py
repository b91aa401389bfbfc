"""The host's memory: how much is free, and how freed memory is reused. Imports no torch."""

import contextlib
import ctypes
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

CORES = "CIFAR10_CORES"  # the environment variable that limits a job of a sweep to its share
CONTROL_GROUP = Path("/sys/fs/cgroup")  # the container's own

# from glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Have the memory of freed tensors reused, in huge pages, instead of returned to the system.

    By default glibc returns every block of more than 32 MB, and gets it back zeroed, page by page, in the next layer:
    on a CPU that halves the speed of a network at 128 pixels and more. Call this before torch is imported. It does
    nothing without glibc on Linux, or if the environment already configures the allocator.
    """
    if any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)


def cores() -> int:
    """How many cores this process may use."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, int(os.environ.get(CORES, own)))


def free_memory() -> int:
    """Bytes of host memory that a process may still take, within its control group's limit, if any."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no limit, or not a number
        limit = int((CONTROL_GROUP / "memory.max").read_text()) - int((CONTROL_GROUP / "memory.current").read_text())
        free = min(free, limit)
    return free


def fits_on(device: "torch.device", nbytes: int) -> bool:
    """Whether so many bytes can live on a GPU: in half of its free memory at most, as the network needs the rest."""
    import torch

    if device.type != "cuda":
        return False
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch keeps what it has freed
    return nbytes < (torch.cuda.mem_get_info(device)[0] + idle) / 2


def size(nbytes: int) -> str:
    """Bytes, human-readable: 1.4 GB."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def hardware(trainer: "pl.Trainer") -> str:
    """The device that the trainer runs on, human-readable."""
    device = trainer.strategy.root_device
    return f"{trainer.num_devices} x " * (trainer.num_devices > 1) + device_name(device)


def device_name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = processor() if device.type == "cpu" else device.type.upper()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or an ARM processor
        return platform.processor() or platform.machine() or "CPU"


@cache
def commit() -> str:
    """The commit of the code as it was when this process first asked, with "+" if files differed from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
