"""The store's files: a folder per data set and size in the cache, built once, by one process, a little at a time.

`images.u8` holds the pixels, row after row; `pictures.bin` a record for each picture, written after its pixels are on
the disk, so that it is also the journal by which an interrupted build goes on.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from io import BytesIO, FileIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from cifar10.data.pictures import Pictures
from cifar10.data.pictures.decode import UnreadablePicture
from cifar10.data.pictures.squares import Square, Squares, encoded_picture, load_square, loaded
from cifar10.errors import FolderBusy, UserError, cause_of
from cifar10.files import atomic_write, locked, sync
from cifar10.progress import Progress

log = logging.getLogger(__name__)

ORIENTATION = Base.Orientation
FORMAT = 1  # of the files; to be raised when decoding changes, too
IMAGES, RECORDS, ABOUT = "images.u8", "pictures.bin", "about.json"
UNFINISHED = ".unfinished"
AT_ONCE = 8  # pictures that a process decodes before it can be stopped
SECONDS = 1.0  # between two entries in the journal
RECORD = np.dtype([("done", "?"), ("digest", "V16"), ("size", "<i4", 2), ("reason", "S160")])


def folder_name(pictures: Pictures, square: Square) -> str:
    """A digest of all that decides the pixels, and of what decides which pictures can be read."""
    versions = []
    for package in ("pillow", "pillow-heif"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return hashlib.sha256(repr((FORMAT, pictures.fingerprint, *square, versions)).encode()).hexdigest()[:20]


def is_whole(folder: Path, count: int, row: int) -> bool:
    """Whether a store lies there, with files of the right sizes. row: bytes of an image, 0 if there are no pixels."""
    try:
        sizes = [(folder / name).stat().st_size for name in (RECORDS, IMAGES)[: 1 + bool(row)]]
    except OSError:
        return False
    return (folder / ABOUT).exists() and sizes == [count * RECORD.itemsize, count * row][: len(sizes)]


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Be the only process that builds this store; others wait, and say so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, "busy"))
        except FolderBusy:
            log.info(f"another process is decoding the same pictures into {folder}: waiting for it")
            stack.enter_context(locked(lock))
        yield


class Rows(Squares):
    """Writes each picture's pixels into its row of `path`, if there is one, and returns its record."""

    def __init__(self, pictures: Pictures, square: Square, path: Path | None):
        super().__init__(pictures, square)
        self.path = path

    def __getitem__(self, index: int) -> np.ndarray:
        record = np.zeros((), RECORD)
        try:
            encoded = encoded_picture(self.pictures.read(index))
            pixels = load_square(encoded, self.square)
        except (UnreadablePicture, OSError) as error:
            record["done"] = isinstance(error, UnreadablePicture)  # a failing disk's error is not the picture's
            record["reason"] = cause_of(error).encode()[:160]
            return record
        record["done"] = True
        record["size"] = size_of(encoded)
        record["digest"] = hashlib.blake2b(encoded, digest_size=16).digest()
        if self.path is not None:
            with self.path.open("r+b") as file:
                file.seek(index * self.square.nbytes)
                file.write(pixels.numpy().tobytes())
        return record


def size_of(encoded: bytes) -> tuple[int, int]:
    """Width and height of a picture once it is upright; zeros if that takes more than its header."""
    with suppress(Exception), Image.open(BytesIO(encoded)) as image:
        sideways = image.getexif().get(ORIENTATION, 1) >= 5
        width, height = image.size
        return (height, width) if sideways else (width, height)
    return 0, 0


def build(folder: Path, pictures: Pictures, square: Square, name: str, pixels: bool = True) -> None:
    """Decode what an earlier build has left undone, then give the folder its name. pixels: False keeps records only.

    Raises OSError; what is done by then, or by a kill, stays for the next.
    """
    unfinished, count = folder.with_suffix(UNFINISHED), len(pictures)
    unfinished.mkdir(exist_ok=True)
    images = unfinished / IMAGES if pixels else None
    with ExitStack() as stack:
        journal = stack.enter_context((unfinished / RECORDS).open("ab", buffering=0))
        if images is not None and not _allocate(images, count * square.nbytes):
            journal.truncate(0)
        begin = min(finished(unfinished), count)
        journal.truncate(begin * RECORD.itemsize)
        if begin:
            log.info(f"{begin:,} of {count:,} pictures are decoded already: going on with the next")
        starts = range(begin, count, AT_ONCE)
        batches = [list(range(start, min(start + AT_ONCE, count))) for start in starts]
        progress = stack.enter_context(Progress(count - begin, "decoding pictures"))
        waiting, written = [], time.monotonic()
        for number, records in enumerate(stack.enter_context(loaded(Rows(pictures, square, images), batches)), 1):
            if not records["done"].all():
                file = pictures.files[batches[number - 1][int(records["done"].argmin())]]
                reason = records["reason"][records["done"].argmin()].decode(errors="ignore")
                raise UserError(f"{file} could not be read ({reason}), though it was listed just now: start again")
            waiting.append(records)
            progress.update(len(records))
            if time.monotonic() > written + SECONDS or number == len(batches):
                _append(journal, waiting, images)
                waiting, written = [], time.monotonic()
    about = {"data set": name, "pictures": len(pictures), "size": square.size, "resize": square.resize}
    about |= {"background": square.background, "made": time.strftime("%Y-%m-%d %H:%M:%S")}
    about |= {"pixels": pixels, "pillow": metadata.version("pillow"), "machine": platform.node()}
    with atomic_write(unfinished / ABOUT, "w") as file:
        json.dump(about, file, indent=1)
    if folder.exists():  # damaged
        shutil.rmtree(folder)
    unfinished.rename(folder)
    sync(folder.parent)


def finished(folder: Path) -> int:
    """How many pictures at the beginning have their record."""
    content = (folder / RECORDS).read_bytes()
    done = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)["done"]
    return int(done.argmin()) if not done.all() else len(done)


def _allocate(images: Path, nbytes: int) -> bool:
    """Whether the file is there with all its bytes; otherwise it is made, so that a full disk is an error now."""
    if images.exists() and images.stat().st_size == nbytes:
        return True
    with images.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, nbytes)
    return False


def _append(journal: FileIO, records: list[np.ndarray], images: Path | None) -> None:
    """Enter records into the journal, once their pixels are on the disk."""
    if images is not None:
        with images.open("rb") as file:
            os.fsync(file.fileno())
    content = b"".join(batch.tobytes() for batch in records)
    while content:
        content = content[journal.write(content) :]
    os.fsync(journal.fileno())
