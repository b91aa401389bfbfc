"""CIFAR-10-C as its authors published it (Hendrycks & Dietterich 2019): the .npy files of zenodo record 2535967."""

from pathlib import Path

from torch import Tensor

from cifar10.data.array_files import load_arrays
from cifar10.data.corruptions import SEVERITIES
from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.errors import UserError

PUBLISHED_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),  # the four extra ones, not part of the benchmark
)


def available_cifar10c(root: str | Path) -> list[str]:
    """The corruptions whose files are in `root`, in the paper's order. Raises UserError if there are none."""
    root = Path(root).expanduser()
    found = [name for name in PUBLISHED_CORRUPTIONS if (root / f"{name}.npy").is_file()]
    if not found:
        raise UserError(f"{root} has no CIFAR-10-C files: put those of zenodo record 2535967 there")
    return found


def load_cifar10c(root: str | Path, corruption: str, severity: int) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,) at one severity, in the order of CIFAR-10's test set.

    A file contains severities 1 to 5 in turn, N = 10,000 images each. Raises UserError naming a damaged file and
    ValueError for a severity outside 1 to 5.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity={severity}: must be one of {SEVERITIES}")
    root, classes = Path(root).expanduser(), len(CIFAR10.class_names)
    return load_arrays(root / f"{corruption}.npy", root / "labels.npy", classes, len(SEVERITIES), severity - 1)
