"""The cache folder that holds the stores: where it is, what is in it, and how it is emptied."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cifar10.data.store.files import ABOUT, IMAGES, UNFINISHED
from cifar10.errors import FolderBusy
from cifar10.files import locked

OURS = re.compile(rf"[0-9a-f]{{20}}(-records)?({re.escape(UNFINISHED)})?")


@dataclass(frozen=True)
class Listed:
    """A store in the cache. used: seconds since the epoch. An unfinished one has no name and 0 pictures."""

    path: Path
    name: str
    count: int
    size: int
    nbytes: int
    used: float


def default_cache() -> Path:
    """$CIFAR10_CACHE, else `cifar10` in the user's cache folder."""
    if own := os.environ.get("CIFAR10_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cifar10"


def list_stores(cache: Path) -> list[Listed]:
    """The stores in the cache, the one last used first."""
    return sorted(_stores(cache), key=lambda store: -store.used)


def clear_cache(cache: Path) -> int:
    """Remove the stores that no process uses; the bytes freed."""
    freed = 0
    for store in list_stores(cache):
        lock = cache / f"{store.path.name.removesuffix(UNFINISHED).removesuffix('-records')}.lock"
        with suppress(FolderBusy), locked(lock, "busy"):
            if not _in_use(store.path / IMAGES):
                shutil.rmtree(store.path)
                freed += store.nbytes
    return freed


def _stores(cache: Path) -> Iterator[Listed]:
    for path in cache.iterdir() if cache.is_dir() else ():
        if OURS.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            known, used = ("", 0, 0), path.stat().st_mtime
            with suppress(OSError, ValueError, TypeError, KeyError):  # not finished, or damaged
                used, about = (path / ABOUT).stat().st_mtime, json.loads((path / ABOUT).read_text())
                known = str(about["data set"]), int(about["pictures"]), int(about["size"])
            nbytes = sum(512 * file.stat().st_blocks for file in path.iterdir())
            yield Listed(path, *known, nbytes, used)


def _in_use(images: Path) -> bool:
    """Whether a process reads from it."""
    try:
        with images.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
