"""CIFAR-10: its official files, verified by checksum and downloaded if absent."""

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

from cifar10.data.batch_files import TEST_FILE, load_batches
from cifar10.errors import MissingData, UserError, cause_of
from cifar10.files import scratch_folder

log = logging.getLogger(__name__)

_OFFICIAL = torchvision.datasets.CIFAR10  # for its URL, file names and MD5 sums; its loader is not used
_BATCHES = _OFFICIAL.base_folder


class CIFAR10:
    """CIFAR-10 (Krizhevsky 2009), read from `<root>/cifar-10-batches-py/`."""

    name = "CIFAR-10"
    synthetic = False
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> None:
        folder = self.root / _BATCHES
        if not os.path.lexists(folder):
            if (self.root / TEST_FILE).is_file():
                raise UserError(f"{self.root} is {_BATCHES}/ itself: set data.root={self.root.parent}, its parent")
            if self._fetch(folder):
                return
        if faults := _faults(folder):
            raise UserError(
                f"CIFAR-10 in {folder} is incomplete or damaged: {', '.join(faults)}; "
                "replace these files, or delete the folder to download it again"
            )

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        return load_batches(self.root / _BATCHES, split, len(self.class_names))

    def _fetch(self, folder: Path) -> bool:
        """Download the folder; False if another process did so while this one waited for it."""
        try:
            with scratch_folder(self.root) as scratch:
                if os.path.lexists(folder):
                    return False
                _download(self.root, scratch)
                if faults := _faults(scratch / _BATCHES):
                    raise RuntimeError(f"in the archive, {', '.join(faults)}")
                (scratch / _BATCHES).rename(folder)
                return True
        except Exception as error:  # urllib, tarfile, zlib, the file system and torchvision share no narrower class
            raise MissingData(
                f"CIFAR-10 is not in {self.root} and could not be downloaded ({cause_of(error)}): set data.root=FOLDER "
                f"or the environment variable CIFAR10_ROOT=FOLDER to the folder that contains {_BATCHES}/, "
                "or use data=shapes (drawn images, no download)"
            ) from error


def _faults(folder: Path) -> list[str]:
    """What is wrong with each official file in `folder`."""
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
    """Unpack the official archive into `scratch`: the one in `root` if it is intact, else a newly downloaded one."""
    archive = root / _OFFICIAL.filename
    if tv_utils.check_integrity(archive, _OFFICIAL.tgz_md5):
        tv_utils.extract_archive(archive, scratch)
        return
    if os.path.lexists(archive):
        log.warning("%s is incomplete or damaged: ignored", archive)
    log.info("downloading CIFAR-10 (170 MB) to %s", root)
    timeout = socket.getdefaulttimeout()
    # torchvision would draw its progress bar even into a file
    quiet = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    socket.setdefaulttimeout(30)
    try:
        with quiet:
            tv_utils.download_and_extract_archive(
                _OFFICIAL.url, scratch, filename=_OFFICIAL.filename, md5=_OFFICIAL.tgz_md5
            )
    finally:
        socket.setdefaulttimeout(timeout)
