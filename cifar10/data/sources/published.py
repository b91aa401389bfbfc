"""Readers of published test sets that lie beside CIFAR-10's: CIFAR-10-C and CIFAR-10.1, as their authors' .npy files.

CIFAR-10-C (Hendrycks & Dietterich 2019): zenodo record 2535967. CIFAR-10.1 (Recht et al. 2018, 2019):
github.com/modestyachts/CIFAR-10.1.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.errors import UserError, cause_of

PUBLISHED_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),  # the four that are not part of the benchmark
)


def available_cifar10c(root: str | Path) -> list[str]:
    """The corruptions whose files lie in `root`, in the paper's order; UserError if there is none."""
    root = Path(root).expanduser()
    found = [name for name in PUBLISHED_CORRUPTIONS if (root / f"{name}.npy").is_file()]
    if not found:
        raise UserError(
            f"{root} holds no file of CIFAR-10-C: put the published files, from zenodo record 2535967, there"
        )
    return found


def load_cifar10c(root: str | Path, corruption: str, severity: int) -> tuple[Tensor, Tensor]:
    """One condition: images uint8 (N, 3, 32, 32) and labels int64 (N,), in the order of CIFAR-10's test set.

    Each file holds severities 1 to 5 one after another, N = 10,000 images each; no other severity's images are read.
    Raises UserError that names a damaged file and ValueError for a severity outside 1 to 5.
    """
    if severity not in range(1, 6):
        raise ValueError(f"severity must be a whole number from 1 to 5, not {severity}")
    root = Path(root).expanduser()
    return _load(root / f"{corruption}.npy", root / "labels.npy", parts=5, part=severity - 1)


def load_cifar101(root: str | Path, version: str = "v6") -> tuple[Tensor, Tensor]:
    """CIFAR-10.1: images uint8 (N, 3, 32, 32) and labels int64 (N,); v6 has 2,000 images, v4 2,021.

    Raises UserError that names a damaged file.
    """
    root = Path(root).expanduser()
    return _load(root / f"cifar10.1_{version}_data.npy", root / f"cifar10.1_{version}_labels.npy")


def _load(image_file: Path, label_file: Path, parts: int = 1, part: int = 0) -> tuple[Tensor, Tensor]:
    """One of equally many images and labels, of `parts` that lie one after another."""
    images = _read(image_file, lambda array: _image_fault(array, parts))
    labels = _read(label_file, _label_fault)
    if len(images) != len(labels):
        raise UserError(
            f"{image_file} holds {len(images)} images but {label_file.name} {len(labels)} labels: replace either"
        )
    count = len(images) // parts
    chosen = slice(part * count, (part + 1) * count)
    pixels = torch.from_numpy(np.array(images[chosen])).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(labels[chosen].astype(np.int64))


def _read(path: Path, fault: Callable[[np.ndarray], str]) -> np.ndarray:
    """The file's array, mapped and not yet read; UserError if it cannot be or has a fault."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if reason := fault(array):
            raise ValueError(reason)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: name the folder of the published files") from error
    except Exception as error:  # numpy raises OSError, ValueError, EOFError, SyntaxError... for damaged files
        raise UserError(f"cannot read {path} ({cause_of(error)}): replace it by the published file") from error
    return array


def _image_fault(array: np.ndarray, parts: int) -> str:
    if array.dtype != np.uint8 or array.shape[1:] != (32, 32, 3):
        return f"{array.dtype} {array.shape} instead of uint8 (N, 32, 32, 3)"
    return f"{len(array)} images are not {parts} equal parts" if not len(array) or len(array) % parts else ""


def _label_fault(array: np.ndarray) -> str:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        return f"{array.dtype} {array.shape} instead of whole numbers (N,)"
    return "" if ((array >= 0) & (array < 10)).all() else "its labels are not from 0 to 9"


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
