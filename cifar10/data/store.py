"""Every picture decoded once: squares in a file of uint8 rows in a cache, shared between runs.

From then on a batch is read from that file. Where the disk has no room for it, pictures are decoded again in every
epoch, by worker processes.
"""

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cifar10.data.pictures import Pictures
from cifar10.data.store_files import IMAGES, Squares, StoreFolder, build, cores, leave_signals_to_the_main_process
from cifar10.errors import FolderBusy
from cifar10.files import locked
from cifar10.machine import free_memory, size

log = logging.getLogger(__name__)

FORMAT = 1  # of a store's folder; another one is built anew
AHEAD = 2  # batches that are read before they are asked for
MOST_IN_MEMORY = 1_000_000_000  # bytes


@dataclass(frozen=True)
class Store:
    """The pictures of a source as squares, and what was found out about them while they were decoded.

    images: uint8 (N, 3, S, S), a tensor or what is indexed like one; zeros where a picture cannot be read.
    errors: the reason for each of these, by index. digests: of each picture's encoded content, str (N,).
    sizes: int32 (N, 2), width and height of the upright pictures.
    """

    images: "Tensor | StoredImages"
    errors: dict[int, str]
    digests: np.ndarray
    sizes: np.ndarray


def open_store(
    pictures: Pictures, side: int, resize: str, background: tuple[int, ...], cache: Path | None = None
) -> Store:
    """The store of these pictures in a cache, built first if it is not there; arguments as of `fit`.

    Several processes may call it at once: one builds. Raises UserError if the cache cannot be written.
    """
    cache = default_cache() if cache is None else cache
    squares = Squares(pictures, side, resize, background)
    needed, free = squares.nbytes, free_space(cache)
    known = [
        pictures.fingerprint,
        side,
        resize,
        list(background),
        FORMAT,
        PIL.__version__,
        bool(find_spec("pillow_heif")),
    ]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    folder = StoreFolder(cache / key, squares)
    if not folder.is_complete() and 1.05 * needed - folder.taken() > free:
        log.warning(
            f"no room for a store of the decoded pictures: it takes {size(needed)}, and {cache} has {size(free)};"
            " decoding them in every epoch, which is slower; data.cache=FOLDER puts it on another disk"
        )
        folder = StoreFolder(cache / f"{key}-decoded", squares, pixels=False)
    if folder.is_complete():
        what = "nothing to decode" if folder.pixels else "nothing to look through"
        log.info(f"found {len(pictures):,} pictures at {side} px in {folder.path}: {what}")
    else:
        build_alone(folder)
    records = folder.read_records()
    if not folder.pixels:
        images = DecodedImages(squares)
    elif needed < min(MOST_IN_MEMORY, free_memory() / 4):
        images = torch.from_numpy(np.fromfile(folder.path / IMAGES, dtype=np.uint8)).view(len(pictures), 3, side, side)
    else:
        images = StoredImages(folder.path / IMAGES, len(pictures), side)
    return Store(
        images,
        {index: record.reason for index, record in enumerate(records) if record.reason},
        np.array([record.digest for record in records]),
        np.array([(record.width, record.height) for record in records], dtype=np.int32).reshape(-1, 2),
    )


def build_alone(folder: StoreFolder) -> None:
    """Build a store, or wait until another process has."""
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.path.with_suffix(".lock")
    try:
        with locked(lock, busy="building"):
            build(folder)
    except FolderBusy:
        log.info(f"another process is decoding these pictures: waiting for it ({folder.path})")
        with locked(lock):
            if not folder.is_complete():
                build(folder)


class StoredImages:
    """Rows of a store's file, read when they are asked for: uint8 (N, 3, S, S).

    Read into memory of their own rather than mapped: mapped pages count as the process's memory, and a file that is
    cut short by someone else would end the process.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, count: int, side: int):
        self.path, self.shape = path, torch.Size((count, 3, side, side))
        self.row = 3 * side * side
        self.nbytes = count * self.row
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115 - as long as this object lives

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Tensor | slice) -> Tensor:
        places = torch.arange(len(self))[places]
        images = torch.empty(len(places), *self.shape[1:], dtype=torch.uint8)
        rows = images.view(len(places), -1).numpy()
        for row, place in zip(rows, places.tolist(), strict=True):
            if os.preadv(self.file.fileno(), [row], place * self.row) != self.row:
                raise OSError(f"{self.path} has become shorter: it was changed while it was in use")
        return images

    def to(self, device: torch.device) -> Tensor:
        """All of them as a tensor on a device."""
        return torch.cat([self[part].to(device) for part in torch.arange(len(self)).split(1000)])

    def stream(self, picks: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images at one array of indices after the other; a thread reads ahead."""
        with ThreadPoolExecutor(1) as pool:
            waiting: deque = deque()
            try:
                for places in picks:
                    waiting.append(pool.submit(self.__getitem__, places))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for one in waiting:
                    one.cancel()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"file": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.file = open(self.path, "rb", buffering=0)  # noqa: SIM115


class DecodedImages:
    """Squares that are decoded when they are asked for, where no store fits: uint8 (N, 3, S, S)."""

    device = torch.device("cpu")

    def __init__(self, squares: Squares):
        self.squares, self.nbytes = squares, squares.nbytes
        self.shape = torch.Size((len(squares), 3, squares.side, squares.side))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Tensor | slice) -> Tensor:
        places = torch.arange(len(self))[places].tolist()
        return torch.stack([self.squares[place] for place in places]) if places else torch.empty(0, *self.shape[1:])

    def to(self, device: torch.device) -> "DecodedImages":
        return self  # there is no room for all of them

    def stream(self, picks: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images at one array of indices after the other, decoded by workers."""
        batches = [places.tolist() for places in picks]
        yield from DataLoader(
            self.squares,
            batch_sampler=batches,
            collate_fn=torch.stack,
            num_workers=cores(),
            worker_init_fn=leave_signals_to_the_main_process,
            generator=torch.Generator(),
        )


def default_cache() -> Path:
    """Where stores are kept: $CIFAR10_CACHE, else $XDG_CACHE_HOME/cifar10, else ~/.cache/cifar10."""
    if own := os.environ.get("CIFAR10_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cifar10"


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk where the folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
