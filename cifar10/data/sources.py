"""Where images come from: CIFAR-10's official files, drawn shapes, a folder of images.

A source has `name`, `synthetic`, `class_names`, `__init__(root)`, `prepare()` (make the files exist and verify them;
one process calls it) and `load("train" or "test")` -> (images uint8 (N, 3, H, W), contiguous, and labels int64 (N,)).
To add a data set, write such a class and add it to `SOURCES`.
"""

import contextlib
import io
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torchvision
from torch import Tensor
from torchvision.datasets import utils as tv_utils

from cifar10.data.batch_files import META_FILE, TEST_FILE, TRAIN_FILES, load_batches
from cifar10.data.image_folder import ImageFolder
from cifar10.data.published import load_cifar101
from cifar10.data.shapes import SHAPE_NAMES, write_cifar10_files
from cifar10.errors import MissingData, UserError, cause_of
from cifar10.files import locked

log = logging.getLogger(__name__)

_OFFICIAL = torchvision.datasets.CIFAR10  # its urls, file names and md5 sums; its loader is not used
_BATCHES = _OFFICIAL.base_folder


class CIFAR10:
    """CIFAR-10 (Krizhevsky 2009): the official files in `<root>/cifar-10-batches-py/`, downloaded if absent."""

    name = "CIFAR-10"
    synthetic = False
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> None:
        folder = self.root / _BATCHES
        if not os.path.lexists(folder):
            if (self.root / TEST_FILE).is_file():
                raise UserError(
                    f"{self.root} is not the folder that holds {_BATCHES}/: pass data.root={self.root.parent}"
                )
            if self._fetch(folder):
                return
        if faults := _faults(folder):
            raise UserError(
                f"CIFAR-10 in {folder} is not whole: {', '.join(faults)}; "
                "replace these files, or delete the folder to have it downloaded afresh"
            )

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        return load_batches(self.root / _BATCHES, split, len(self.class_names))

    def _fetch(self, folder: Path) -> bool:
        """Whether this process made the folder, and not another one while it waited."""
        try:
            with _scratch_folder(self.root) as scratch:
                if os.path.lexists(folder):
                    return False
                _download(self.root, scratch)
                if faults := _faults(scratch / _BATCHES):
                    raise RuntimeError(f"in the archive {', '.join(faults)}")
                (scratch / _BATCHES).rename(folder)
                return True
        except Exception as error:  # urllib, tarfile, zlib, the file system and torchvision share no narrower class
            raise MissingData(
                f"CIFAR-10 is not in {self.root} and could not be downloaded ({cause_of(error)}): put {_BATCHES}/ "
                "under a folder and pass data.root=FOLDER, or set CIFAR10_ROOT=FOLDER, "
                "or use data=shapes (drawn images, no download)"
            ) from error


class Shapes:
    """Drawn images in CIFAR-10's file format in `<root>/shapes/cifar-10-batches-py/`, written if they are absent."""

    name = "shapes (drawn images, not CIFAR-10)"
    synthetic = True
    class_names = SHAPE_NAMES

    def __init__(self, root: str | Path) -> None:
        self.folder = Path(root).expanduser() / "shapes" / _BATCHES

    def prepare(self) -> None:
        if not self._absent():
            return
        try:
            with _scratch_folder(self.folder.parent) as scratch:
                if not (absent := self._absent()):
                    return  # another process has drawn them while this one waited
                write_cifar10_files(scratch)
                self.folder.mkdir(exist_ok=True)
                for name in absent:
                    (scratch / name).replace(self.folder / name)
        except OSError as error:
            raise UserError(
                f"cannot write the drawn images in {self.folder} ({cause_of(error)}): "
                "pass data.root=FOLDER, a folder that can be written"
            ) from error

    def _absent(self) -> list[str]:
        names = (*TRAIN_FILES, TEST_FILE, META_FILE)
        return [name for name in names if not (self.folder / name).is_file() and not (self.folder / name).is_dir()]

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        return load_batches(self.folder, split, len(self.class_names))


class CIFAR101:
    """CIFAR-10.1 (Recht et al. 2019): test images newly drawn for CIFAR-10's classes, from their published files."""

    name = "CIFAR-10.1"
    synthetic = False
    class_names = CIFAR10.class_names

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> None:
        """Nothing: the files are read, and checked, as a whole."""

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        if split == "train":
            raise UserError(
                "data=cifar101: has test images only; train on data=cifar10 and evaluate with data=cifar101"
            )
        return load_cifar101(self.root)


SOURCES: dict[str, type] = {"cifar10": CIFAR10, "cifar101": CIFAR101, "shapes": Shapes, "folder": ImageFolder}


def _faults(folder: Path) -> list[str]:
    """What is wrong with the official files in `folder`, file by file."""
    faults = []
    sums = [*_OFFICIAL.train_list, *_OFFICIAL.test_list, (_OFFICIAL.meta["filename"], _OFFICIAL.meta["md5"])]
    for name, md5 in sums:
        try:
            if not (folder / name).is_file():
                faults.append(f"{name} is missing")
            elif tv_utils.calculate_md5(folder / name) != md5:
                faults.append(f"{name} does not match its md5")
        except OSError as error:
            faults.append(f"{name} cannot be read ({cause_of(error)})")
    return faults


def _download(root: Path, scratch: Path) -> None:
    """Unpack the official archive into `scratch`: the one that lies in `root` if it is whole, else a fresh one."""
    archive = root / _OFFICIAL.filename
    if tv_utils.check_integrity(archive, _OFFICIAL.tgz_md5):
        tv_utils.extract_archive(archive, scratch)
        return
    if os.path.lexists(archive):
        log.warning("%s is not the whole archive: it is not used", archive)
    log.info("downloading CIFAR-10 (170 MB) to %s", root)
    timeout = socket.getdefaulttimeout()
    # torchvision draws its progress bar even into a file, where every redraw is kept
    quiet = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    socket.setdefaulttimeout(30)
    try:
        with quiet:
            tv_utils.download_and_extract_archive(
                _OFFICIAL.url, scratch, filename=_OFFICIAL.filename, md5=_OFFICIAL.tgz_md5
            )
    finally:
        socket.setdefaulttimeout(timeout)


@contextlib.contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, where one process works at a time; others wait.

    A `parent` made for it goes again unless something was put there. What killed processes left is removed.
    """
    made = [folder for folder in (parent, *parent.parents) if not os.path.lexists(folder)]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent / ".preparing.lock") as alone:
            parent.mkdir(parents=True, exist_ok=True)  # the process that was waited for may have taken it away
            if alone:
                for left in parent.glob(".unfinished-*"):
                    shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=parent) as scratch:
                yield Path(scratch)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: it is in use
                folder.rmdir()
