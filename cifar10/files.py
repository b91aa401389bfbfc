"""Atomic writes, and folders that one process uses at a time."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from cifar10.errors import FolderBusy, UserError, cause_of


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", **options: Any) -> Iterator[IO]:
    """Open a new file that replaces `path`, written and synced, once the block has ended without an error.

    Until then, and after an error or a kill, the previous file is unchanged. mode, options: of `open`.
    Raises UserError naming the file if it cannot be written: a full disk, a read-only folder.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # what a link names is replaced, not the link
    if target.exists() and not target.is_file():
        raise UserError(f"{path} cannot be written (not a regular file)")
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(aside, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
        sync(target.parent)
    except OSError as error:
        kept = "; the previous file is unchanged" if path.exists() else ""
        raise UserError(f"{path} cannot be written ({cause_of(error)}){kept}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sync(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the unfinished files of killed processes, in a folder that no other process is using."""
    for aside in Path(folder).rglob(".*.tmp"):
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | Path, busy: str | None = None) -> Iterator[bool]:
    """Hold the lock file at `path`, which a process releases however it ends.

    Waits for it, or raises FolderBusy(busy) if another process holds it. On a file system without locks it continues
    without one, and yields False. A process that has waited must recheck what it found before: the other may have done
    the work.
    """
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        raise FolderBusy(busy) from None
    except (OSError, NotImplementedError):
        pass  # no locks here, or no write permission: the next write reports it
    try:
        yield lock.is_locked
    finally:
        with contextlib.suppress(OSError):
            if lock.is_locked:
                os.unlink(path)
        lock.release()


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, for one process at a time; others wait.

    A `parent` created for it is removed again unless something was put there. What killed processes left is removed.
    """
    made = [folder for folder in (parent, *parent.parents) if not os.path.lexists(folder)]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent / ".preparing.lock") as alone:
            parent.mkdir(parents=True, exist_ok=True)  # the process that held the lock may have removed it
            if alone:
                for left in parent.glob(".unfinished-*"):
                    shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=parent) as scratch:
                yield Path(scratch)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: it is in use
                folder.rmdir()
