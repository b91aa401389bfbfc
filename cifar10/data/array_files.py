"""Images and labels in a pair of .npy files, the form in which CIFAR-10-C and CIFAR-10.1 are published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar10.errors import UserError, cause_of


def load_arrays(
    image_file: Path, label_file: Path, classes: int, parts: int = 1, part: int = 0
) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,): one of `parts` equal, consecutive parts of the files.

    The other parts' images are not read. Raises UserError naming a missing or damaged file.
    """
    images = _open(image_file, lambda array: _image_fault(array, parts))
    labels = _open(label_file, lambda array: _label_fault(array, classes))
    if len(images) != len(labels):
        raise UserError(
            f"{image_file} has {len(images)} images but {label_file.name} has {len(labels)} labels: replace one of them"
        )
    count = len(images) // parts
    chosen = slice(part * count, (part + 1) * count)
    pixels = torch.from_numpy(np.array(images[chosen])).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(labels[chosen].astype(np.int64))


def _open(path: Path, find_fault: Callable[[np.ndarray], str]) -> np.ndarray:
    """The file's array, memory-mapped; UserError if it cannot be opened or `find_fault` finds one."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if fault := find_fault(array):
            raise ValueError(fault)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: set data.root to the folder with the published files") from error
    except Exception as error:  # numpy raises OSError, ValueError, EOFError, SyntaxError... for damaged files
        raise UserError(f"cannot read {path} ({cause_of(error)}): replace it with the published file") from error
    return array


def _image_fault(array: np.ndarray, parts: int) -> str:
    if array.dtype != np.uint8 or array.shape[1:] != (32, 32, 3):
        return f"{array.dtype} {array.shape} instead of uint8 (N, 32, 32, 3)"
    return f"{len(array)} images cannot be divided into {parts}" if not len(array) or len(array) % parts else ""


def _label_fault(array: np.ndarray, classes: int) -> str:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        return f"{array.dtype} {array.shape} instead of integers (N,)"
    return "" if ((array >= 0) & (array < classes)).all() else f"labels outside 0 to {classes - 1}"
