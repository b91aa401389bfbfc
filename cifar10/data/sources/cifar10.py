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

from cifar10.data.batch_files import load_batches
from cifar10.errors import MissingData, UserError, cause_of
from cifar10.files import scratch_folder

log = logging.getLogger(__name__)


class CIFAR10:
    """CIFAR-10 (Krizhevsky 2009), read from `<root>/cifar-10-batches-py/`."""

    name = "CIFAR-10"
    synthetic = False
    official = torchvision.datasets.CIFAR10  # for its URL, file names and MD5 sums; its loader is not used
    labels_key = b"labels"
    variable = "CIFAR10_ROOT"  # of the environment, for the root
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self.folder = self.root / self.official.base_folder

    def prepare(self) -> None:
        if not os.path.lexists(self.folder):
            if (self.root / self.official.meta["filename"]).is_file():
                raise UserError(
                    f"{self.root} is {self.folder.name}/ itself: set data.root={self.root.parent}, its parent"
                )
            if self._fetch():
                return
        if faults := self._faults(self.folder):
            raise UserError(
                f"{self.name} in {self.folder} is incomplete or damaged: {', '.join(faults)}; "
                "replace these files, or delete the folder to download it again"
            )

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        files = self.official.train_list if split == "train" else self.official.test_list
        return load_batches(self.folder, [name for name, _ in files], len(self.class_names), self.labels_key)

    def _fetch(self) -> bool:
        """Download the folder; False if another process did so while this one waited for it."""
        try:
            with scratch_folder(self.root) as scratch:
                if os.path.lexists(self.folder):
                    return False
                self._download(scratch)
                if faults := self._faults(scratch / self.folder.name):
                    raise RuntimeError(f"in the archive, {', '.join(faults)}")
                (scratch / self.folder.name).rename(self.folder)
                return True
        except Exception as error:  # urllib, tarfile, zlib, the file system and torchvision share no narrower class
            raise MissingData(
                f"{self.name} is not in {self.root} and could not be downloaded ({cause_of(error)}): set "
                f"data.root=FOLDER or the environment variable {self.variable}=FOLDER to the folder that contains "
                f"{self.folder.name}/, or use data=shapes (drawn images, no download)"
            ) from error

    def _faults(self, folder: Path) -> list[str]:
        """What is wrong with each official file in `folder`."""
        faults, meta = [], self.official.meta
        for name, md5 in [*self.official.train_list, *self.official.test_list, (meta["filename"], meta["md5"])]:
            try:
                if not (folder / name).is_file():
                    faults.append(f"{name} is missing")
                elif tv_utils.calculate_md5(folder / name) != md5:
                    faults.append(f"{name} does not match its md5")
            except OSError as error:
                faults.append(f"{name} cannot be read ({cause_of(error)})")
        return faults

    def _download(self, scratch: Path) -> None:
        """Unpack the official archive into `scratch`: the one in the root if it is intact, else a downloaded one."""
        name, md5 = self.official.filename, self.official.tgz_md5
        archive = self.root / name
        if tv_utils.check_integrity(archive, md5):
            tv_utils.extract_archive(archive, scratch)
            return
        if os.path.lexists(archive):
            log.warning("%s is incomplete or damaged: ignored", archive)
        log.info("downloading %s (170 MB) to %s", self.name, self.root)
        timeout = socket.getdefaulttimeout()
        # torchvision would draw its progress bar even into a file
        quiet = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
        socket.setdefaulttimeout(30)
        try:
            with quiet:
                tv_utils.download_and_extract_archive(self.official.url, scratch, filename=name, md5=md5)
        finally:
            socket.setdefaulttimeout(timeout)
