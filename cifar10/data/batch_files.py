"""The file format of CIFAR-10 and CIFAR-100: Python 2 pickles, 3,072 bytes per image, red, green and blue in turn."""

import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifar10.errors import UserError, cause_of

TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"
META_FILE = "batches.meta"

_ALLOWED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class PlainUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain Python values only, so that no code in a file is executed."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def load_batches(
    folder: Path, names: Sequence[str], classes: int, labels_key: bytes = b"labels"
) -> tuple[Tensor, Tensor]:
    """The files' images uint8 (N, 3, 32, 32) and labels int64 (N,). Raises UserError naming a damaged file."""
    images = labels = torch.empty(0)
    for index, name in enumerate(names):
        data, batch_labels = _read_batch(folder / name, classes, labels_key)
        if index == 0:  # allocated once, because all files of a split have the same number of images
            images = torch.empty(len(names), len(data), 3, 32, 32, dtype=torch.uint8)
            labels = torch.empty(len(names), len(data), dtype=torch.int64)
        if len(data) != images.shape[1]:
            raise UserError(
                f"{folder / name} has {len(data)} images but {names[0]} has {images.shape[1]}: replace one of them"
            )
        images[index].view(len(data), -1).copy_(torch.from_numpy(data))
        labels[index] = torch.from_numpy(batch_labels)
        del data  # frees it before the next file is read
    return images.flatten(0, 1), labels.flatten()


def _read_batch(path: Path, classes: int, labels_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One file's images uint8 (n, 3072), flattened from (3, 32, 32), and labels int64 (n,)."""
    try:
        with path.open("rb") as file:
            batch = PlainUnpickler(file, encoding="bytes").load()
        if not isinstance(batch, dict) or not {b"data", labels_key} <= batch.keys():
            raise ValueError(f"no data and {labels_key.decode()}")
        data, labels = batch[b"data"], np.array(batch[labels_key])
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), 3072):
            raise ValueError("its data is not one row of 3,072 bytes per label")
        if labels.dtype.kind not in "iu" or labels.ndim != 1 or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(f"its labels are not integers from 0 to {classes - 1}")
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f"cannot read {path} as a CIFAR batch ({cause_of(error)}): replace or delete it") from error
    return data, labels.astype(np.int64)


_Pickler: Any = pickle._Pickler  # Python's own, in Python, which no stub describes


class _Python2Pickler(_Pickler):
    """Pickles bytes as Python 2 pickled `str`, as in the official files, so that any CIFAR-10 reader can read them."""

    dispatch = _Pickler.dispatch.copy()

    def save_bytes(self, value: bytes) -> None:
        size = len(value)
        header = pickle.SHORT_BINSTRING + bytes([size]) if size < 256 else pickle.BINSTRING + struct.pack("<i", size)
        self.write(header + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def dump_batch(content: dict[bytes, object], path: Path) -> None:
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)
