"""The host's memory: how much is free, and how freed memory is used again. Imports no torch."""

import contextlib
import ctypes
import os
from pathlib import Path

import psutil

CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container's own

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Have the memory of freed tensors used again, in huge pages, instead of going back to the system.

    glibc by default returns every block of more than 32 MB, and gets it back zeroed, page by page, in the next layer:
    on a CPU that halves the speed of a network at 128 pixels and more. Call it before torch is imported. Elsewhere than
    with glibc on Linux it does nothing; so it does where the environment holds settings of its own.
    """
    if any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)


def free_memory() -> int:
    """Bytes of host memory that a process may still take, within its control group's limit where there is one."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such limit, or none that is a number
        limit = int((CONTROL_GROUP / "memory.max").read_text()) - int((CONTROL_GROUP / "memory.current").read_text())
        free = min(free, limit)
    return free


def size(nbytes: int) -> str:
    """Bytes in words: 1.4 GB."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
