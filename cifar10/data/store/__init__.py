"""The store: every picture decoded once, kept as a square of uint8 pixels in the cache, and shared between runs.

It stands between the sources that list pictures and the data module, which indexes `Store.images` like a tensor.
"""

import fcntl
import logging
import os
import shutil
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar10.data.pictures import Pictures
from cifar10.data.pictures.decode import UnreadablePicture
from cifar10.data.pictures.squares import Square, Squares, loaded
from cifar10.data.store import files
from cifar10.data.store.cache import default_cache
from cifar10.errors import UserError, cause_of
from cifar10.machine import free_memory
from cifar10.machine import size as human

log = logging.getLogger(__name__)

IN_MEMORY = 10**9  # bytes up to which a store is read as a whole; indexing is then as fast as a tensor's
AHEAD = 2  # batches


class Images:
    """Images (N, 3, S, S), uint8, that are read as they are indexed: with an int, a slice or an int64 tensor."""

    device = torch.device("cpu")

    def __init__(self, count: int, side: int):
        self.shape = torch.Size((count, 3, side, side))
        self.nbytes = self.shape.numel()
        self.rows = torch.arange(count)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        rows = self.rows[index]
        return self.read(rows.reshape(-1).tolist()).view(*rows.shape, *self.shape[1:])

    def read(self, rows: list[int]) -> Tensor:
        """The images of these rows: uint8 (B, 3, S, S)."""
        raise NotImplementedError

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of one batch of indices after another; a thread reads two batches ahead."""
        pool, ahead = ThreadPoolExecutor(1), deque()
        try:
            for indices in batches:
                ahead.append(pool.submit(self.__getitem__, indices))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def to(self, device: torch.device | str) -> Tensor:
        """All images as a tensor on the device."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for part, rows in zip(images.split(256), self.rows.split(256), strict=True):
            part.copy_(self[rows])
        return images


class StoredImages(Images):
    """Images in a file, read with system calls: mapped pages would count as the process's memory, and a file that is
    truncated underneath would end it with a signal.

    It is locked, so that nobody clears it away.
    """

    def __init__(self, path: Path, count: int, side: int):
        super().__init__(count, side)
        self.file = path.open("rb", buffering=0)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self.file, fcntl.LOCK_SH)

    def __reduce__(self) -> tuple:
        return StoredImages, (Path(self.file.name), len(self), self.shape[-1])  # other processes open it themselves

    def read(self, rows: list[int]) -> Tensor:
        images = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        row = self.shape[1:].numel()
        for place, into in zip(rows, images.view(len(rows), row).numpy(), strict=True):
            if os.preadv(self.file.fileno(), [into], place * row) != row:
                raise UserError(f"{self.file.name} has been cut off while it was in use: start again")
        return images


class DecodedImages(Images):
    """Images that are decoded every time they are asked for, where the disk has no room for them."""

    def __init__(self, pictures: Pictures, square: Square, unreadable: Collection[int]):
        super().__init__(len(pictures), square.size)
        self.squares = Squares(pictures, square, unreadable)

    def read(self, rows: list[int]) -> Tensor:
        images = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        for row, into in zip(rows, images, strict=True):
            try:
                into.copy_(torch.from_numpy(self.squares[row]))
            except UnreadablePicture as error:
                raise lost(str(error)) from None
        return images

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        with loaded(self.squares, [self.rows[indices].tolist() for indices in batches]) as arrays:
            try:
                yield from map(torch.from_numpy, arrays)
            except UnreadablePicture as error:  # in a worker, whose traceback it holds
                reason = str(error).splitlines()[-1].rpartition("UnreadablePicture: ")[2]
                raise lost(reason) from None


def lost(reason: str) -> UserError:
    return UserError(f"{reason}: it could be read before; put it back, and resume or start again")


@dataclass(frozen=True)
class Store:
    """errors: why a picture could not be read, by its index; its pixels are zeros, and so are its digest and size.
    images: a tensor if they are few. digests: str (N,), of the encoded pictures: equal ones are copies.
    sizes: int32 (N, 2), width and height of the upright pictures.
    """

    images: Images | Tensor
    errors: dict[int, str]
    digests: np.ndarray
    sizes: np.ndarray


def open_store(
    pictures: Pictures, size: int, resize: str, background: Sequence[int], cache: Path | None = None, name: str = ""
) -> Store:
    """The pictures as squares of `size` pixels, decoded now unless the cache has them.

    cache: a folder, None for `default_cache`. name: what to call the data set in the cache's listing.
    Raises UserError if the cache cannot be written.
    """
    square, cache = Square(size, resize, tuple(background)), cache or default_cache()
    folder = cache / files.folder_name(pictures, square)
    try:
        folder, pixels = _find_or_build(folder, pictures, square, name)
        with suppress(OSError):  # a read-only cache
            os.utime(folder / files.ABOUT)
        records = np.fromfile(folder / files.RECORDS, files.RECORD)
        bad = np.flatnonzero(records["reason"])
        images = DecodedImages(pictures, square, bad.tolist())
        if pixels:
            images = StoredImages(folder / files.IMAGES, len(pictures), size)
            if images.nbytes < min(IN_MEMORY, free_memory() / 4):
                images = images.to("cpu")
    except OSError as error:
        raise UserError(
            f"the decoded pictures cannot be kept in {cache} ({cause_of(error)}): make room there, or name another"
            " folder with data.cache=FOLDER; what is done stays, and the next start goes on with it"
        ) from error
    errors = {int(index): records["reason"][index].decode(errors="ignore") for index in bad}
    digests = np.array([digest.tobytes().hex() for digest in records["digest"]])
    return Store(images, errors, digests, records["size"])


def _find_or_build(folder: Path, pictures: Pictures, square: Square, name: str) -> tuple[Path, bool]:
    """Where the store is, and whether it has pixels."""
    count, what = len(pictures), f"{len(pictures):,} pictures at {square.size} px"
    without = folder.with_name(f"{folder.name}-records")
    if files.is_whole(folder, count, square.nbytes):
        log.info(f"found {what} in {folder}, nothing to decode")
        return folder, True
    with files.building(folder):
        if files.is_whole(folder, count, square.nbytes):
            log.info(f"found {what} in {folder}, decoded by another process")
            return folder, True
        if pixels := _has_room(folder, count * square.nbytes):
            files.build(folder, pictures, square, name)
            log.info(f"decoded {what} into {folder}")
        elif not files.is_whole(folder := without, count, 0):
            files.build(folder, pictures, square, name, pixels=False)
    return folder, pixels


def _has_room(folder: Path, nbytes: int) -> bool:
    begun = folder.with_suffix(files.UNFINISHED) / files.IMAGES
    taken = begun.stat().st_blocks * 512 if begun.exists() else 0
    free = shutil.disk_usage(folder.parent).free
    if 1.05 * (nbytes - taken) <= free:
        return True
    log.warning(
        f"the decoded pictures take {human(nbytes)}, and {folder.parent} has {human(free)} free: every epoch decodes"
        " them again; data.cache=FOLDER keeps them elsewhere"
    )
    return False
