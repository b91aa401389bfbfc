"""The files of a store, and how they are built: by all cores, complete or absent, continued after a kill.

A store is a folder: images.u8 (N x 3 x S x S), pictures.tsv (a line for each picture) and about.json. It is built under
another name, and renamed when it is complete.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import stat
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cifar10.data.decode import UnreadablePicture, read_picture
from cifar10.data.pictures import Pictures
from cifar10.data.preprocessing import fit
from cifar10.errors import UserError, cause_of
from cifar10.files import locked, sync
from cifar10.progress import Progress

log = logging.getLogger(__name__)

IMAGES, RECORDS, ABOUT = "images.u8", "pictures.tsv", "about.json"
AT_ONCE = 32  # pictures that a worker is given
FEW = 256  # pictures for which starting workers does not pay
SYNC_SECONDS = 2.0  # between two records of what is done


class Record(NamedTuple):
    """What is known of a picture: a digest of its content, its upright size, and why it cannot be read, if so."""

    digest: str
    width: int
    height: int
    reason: str


class Squares(Dataset):
    """Pictures decoded and made square one at a time, as often as they are asked for; arguments as of `fit`."""

    def __init__(self, pictures: Pictures, side: int, resize: str, background: tuple[int, ...]):
        self.pictures, self.side, self.resize, self.background = pictures, side, resize, background

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def nbytes(self) -> int:
        return len(self) * self.row

    @property
    def row(self) -> int:
        return 3 * self.side * self.side

    def __getitem__(self, index: int) -> Tensor:
        return self.decode(self.content(index))

    def content(self, index: int) -> bytes:
        """The encoded picture. Raises UnreadablePicture if the file cannot be read."""
        picture = self.pictures.read(index)
        if isinstance(picture, bytes):
            return picture
        try:
            if not stat.S_ISREG(os.stat(picture).st_mode):  # reading from a pipe would wait forever
                raise UnreadablePicture("not a regular file")
            return Path(picture).read_bytes()
        except OSError as error:
            raise UnreadablePicture(cause_of(error)) from error

    def decode(self, content: bytes) -> Tensor:
        """uint8 (3, side, side)."""
        picture = read_picture(content, at_least=self.side, background=self.background)
        return fit(picture, self.side, self.resize, self.background)


class StoreFolder:
    """Where the files of a store are. pixels: whether it has images, or only records."""

    def __init__(self, path: Path, squares: Squares, pixels: bool = True):
        self.path, self.squares, self.pixels = path, squares, pixels
        self.partial = path.with_name(f"{path.name}.partial")

    def is_complete(self) -> bool:
        if not (self.path / ABOUT).is_file():
            return False
        with suppress(OSError):
            os.utime(self.path / ABOUT)  # last used
        whole = not self.pixels or (self.path / IMAGES).stat().st_size == self.squares.nbytes
        return whole and len(self.read_records()) == len(self.squares)

    def taken(self) -> int:
        """Bytes on the disk that an unfinished store has taken already."""
        images = self.partial / IMAGES
        return images.stat().st_blocks * 512 if images.is_file() else 0

    def read_records(self, partial: bool = False) -> list[Record]:
        """A record for each picture, in order; partial: of those that an unfinished store has."""
        file = (self.partial if partial else self.path) / RECORDS
        if not file.is_file():
            return []
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # the last one is torn or empty
        cells = [line.split("\t") for line in lines]
        return [Record(digest, int(width), int(height), reason) for digest, width, height, reason in cells]


class Worker(Dataset):
    """Decodes pictures, writes them into the store's file, if any, and returns their records."""

    def __init__(self, squares: Squares, file: Path | None):
        self.squares, self.file, self.handle = squares, file, None

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, index: int) -> Record:
        content = b""
        try:
            content = self.squares.content(index)
            square = self.squares.decode(content)
        except UnreadablePicture as error:
            return Record(digest_of(content), 0, 0, str(error))
        if self.file is not None:
            if self.handle is None:
                self.handle = os.open(self.file, os.O_WRONLY)
            os.pwrite(self.handle, square.contiguous().numpy(), index * self.squares.row)
        return Record(digest_of(content), *upright_size(content), "")


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def upright_size(content: bytes) -> tuple[int, int]:
    """Width and height of a picture; 0 where only another package knows its format."""
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(274, 1) >= 5 else (width, height)
    except Exception:  # it could be decoded, so what is wrong is its EXIF data, or the format is an extra's
        return 0, 0


def build(folder: StoreFolder) -> None:
    """Build a store, or what a killed process has left to do. Raises UserError if it cannot be written."""
    squares, partial = folder.squares, folder.partial
    try:
        shutil.rmtree(folder.path, ignore_errors=True)  # incomplete, or damaged
        partial.mkdir(parents=True, exist_ok=True)
        done = len(folder.read_records(partial=True))
        if folder.pixels:
            with open(partial / IMAGES, "ab") as images:
                os.posix_fallocate(images.fileno(), 0, max(1, squares.nbytes))  # a full disk is an error now
        log.info(
            f"decoding {len(squares):,} pictures once, at {squares.side} px, into {folder.path}"
            + f" ({done:,} are there already)" * bool(done)
        )
        decode(folder, done)
        about = {"pictures": len(squares), "side": squares.side, "resize": squares.resize, "bytes": squares.nbytes}
        (partial / ABOUT).write_text(json.dumps(about | {"made": time.strftime("%Y-%m-%d %H:%M:%S")}) + "\n")
        partial.rename(folder.path)
        sync(folder.path.parent)
    except OSError as error:
        raise UserError(
            f"the store of decoded pictures {folder.path} cannot be written ({cause_of(error)}); data.cache=FOLDER puts"
            " it elsewhere, python -m cifar10 cache clear=true empties it"
        ) from error


def decode(folder: StoreFolder, done: int) -> None:
    """Decode the pictures from number `done` on, in order, and note how far it is every few seconds."""
    squares = folder.squares
    file = folder.partial / IMAGES if folder.pixels else None
    loader = DataLoader(
        Worker(squares, file),
        batch_size=AT_ONCE,
        sampler=range(done, len(squares)),
        collate_fn=list,
        num_workers=cores() if len(squares) - done > FEW else 0,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # else it takes a number from the global one, which dropout uses
    )
    with (
        open(folder.partial / RECORDS, "r+b" if done else "wb") as notes,
        Progress(len(squares), "decoding") as progress,
    ):
        notes.seek(sum(len(line) + 1 for line in notes.read().split(b"\n")[:done]) if done else 0)
        notes.truncate()  # a torn line
        progress.update(done)
        waiting, due = [], time.monotonic() + SYNC_SECONDS
        for records in loader:
            waiting += records
            progress.update(len(records))
            if time.monotonic() > due:
                note(notes, waiting, file)
                waiting, due = [], time.monotonic() + SYNC_SECONDS
        note(notes, waiting, file)


def note(notes, records: list[Record], file: Path | None) -> None:
    """Append records once their pixels are on the disk."""
    if file is not None:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    notes.write("".join("\t".join(map(str, record)) + "\n" for record in records).encode())
    notes.flush()
    os.fsync(notes.fileno())


def leave_signals_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to workers too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_stores(cache: Path) -> list[dict]:
    """What is in a cache: path, pictures, side, bytes on the disk, and when it was last used; unfinished ones too."""
    found = []
    for folder in sorted(path for path in cache.glob("*") if (path / RECORDS).is_file()):
        about = folder / ABOUT
        facts = json.loads(about.read_text()) if about.is_file() else {"pictures": None, "side": None}
        nbytes = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
        used = (about if about.is_file() else folder).stat().st_mtime
        found.append(
            {"path": folder, "pictures": facts["pictures"], "side": facts["side"], "bytes": nbytes, "used": used}
        )
    return found


def clear_cache(cache: Path) -> int:
    """Remove all stores but those that are being built; returns the bytes freed. Runs that read one go on."""
    freed = 0
    for store in list_stores(cache):
        lock = store["path"].with_suffix(".lock")
        with suppress(UserError), locked(lock, busy="is being built"):
            shutil.rmtree(store["path"])
            freed += store["bytes"]
    return freed
