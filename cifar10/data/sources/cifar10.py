"""Where images come from: CIFAR-10's official files, drawn shapes, a folder of images.

A source has `name`, `synthetic`, `class_names`, `__init__(root)`, `prepare()` (make the files exist and verify them;
one process calls it) and `load("train" or "test")` -> (images uint8 (N, 3, H, W), contiguous, and labels int64 (N,)).
To add a data set, write such a class and add it to `SOURCES`.
"""

import contextlib
import io
import logging
import os
import socket
import sys
from pathlib import Path

import torchvision
from torch import Tensor
from torchvision.datasets import utils as tv_utils

from cifar10.data.sources.batch_files import TEST_FILE, load_batches
from cifar10.errors import MissingData, UserError, cause_of
from cifar10.files import scratch_folder

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
            with scratch_folder(self.root) as scratch:
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
