"""CIFAR-10.1: a second test set for CIFAR-10, read from the files of github.com/modestyachts/CIFAR-10.1."""

from pathlib import Path

from torch import Tensor

from cifar10.data.array_files import load_arrays
from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.errors import UserError


class CIFAR101:
    """New test images for CIFAR-10's classes (Recht et al. 2019): 2,000 in version v6, 2,021 in v4."""

    name = "CIFAR-10.1"
    synthetic = False
    class_names = CIFAR10.class_names

    def __init__(self, root: str | Path, version: str = "v6") -> None:
        self.root = Path(root).expanduser()
        self.version = version

    def prepare(self) -> None:
        """Nothing to do: `load` checks the files."""

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        if split == "train":
            raise UserError("data=cifar101: has test images only; train on data=cifar10 and evaluate on data=cifar101")
        image_file, label_file = (self.root / f"cifar10.1_{self.version}_{part}.npy" for part in ("data", "labels"))
        return load_arrays(image_file, label_file, len(self.class_names))
