"""Encoded pictures as squares of one size, by several processes: what fills the store, or stands in for it."""

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cifar10.data.pictures import Pictures
from cifar10.data.pictures.decode import UnreadablePicture, read_picture
from cifar10.data.preprocessing import WHITE, fit
from cifar10.errors import cause_of
from cifar10.machine import cores

FEW = 300  # pictures that are decoded before processes have started


class Square(NamedTuple):
    """What a picture is made: see `fit`."""

    size: int
    resize: str = "crop"
    background: tuple[int, ...] = WHITE

    @property
    def nbytes(self) -> int:
        return 3 * self.size**2


def load_square(picture: bytes | Path, square: Square) -> Tensor:
    """An encoded picture as the network is to see it: uint8 (3, size, size).

    A large JPEG is decoded at a fraction of its size, but at no less than twice `size`, see `read_picture`.
    Raises UnreadablePicture with the reason.
    """
    return fit(read_picture(picture, at_least=square.size, background=square.background), *square)


def encoded_picture(picture: bytes | Path) -> bytes:
    """A picture's bytes. Raises UnreadablePicture for what is no file, as a broken link, and OSError for all else."""
    if isinstance(picture, bytes):
        return picture
    if not picture.is_file() and os.path.lexists(picture):  # reading from a pipe would wait forever
        raise UnreadablePicture("a link to nothing" if picture.is_symlink() else "not a regular file")
    try:
        return picture.read_bytes()
    except PermissionError as error:
        raise UnreadablePicture(cause_of(error)) from error


class Squares(Dataset):
    """The pixels of each picture, uint8 array (3, size, size); zeros for those that are known to be unreadable.

    Raises UnreadablePicture, naming the file, for another one that cannot be read.
    """

    def __init__(self, pictures: Pictures, square: Square, unreadable: Collection[int] = ()):
        self.pictures, self.square, self.unreadable = pictures, square, frozenset(unreadable)

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self.unreadable:
            return np.zeros((3, self.square.size, self.square.size), np.uint8)
        try:
            return load_square(self.pictures.read(index), self.square).numpy()
        except UnreadablePicture as error:
            raise UnreadablePicture(f"{self.pictures.files[index]}: {error}") from error


@contextlib.contextmanager
def loaded(dataset: Dataset, batches: Sequence[list[int]]) -> Iterator[Iterator[np.ndarray]]:
    """Items of the data set stacked batch by batch, in order, made by as many processes as there are cores.

    They end with the block, however it ends. PyTorch's own random numbers stay as they are.
    """
    workers = cores() if sum(map(len, batches)) >= FEW else 0
    stack: Callable = np.stack  # arrays come through a pipe: containers often have little shared memory for tensors
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=stack,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),
    )
    iterator: Any = iter(loader)
    try:
        yield iterator
    finally:
        if workers:
            iterator._shutdown_workers()  # a traceback would keep the iterator, and with it the processes


def _leave_signals_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
