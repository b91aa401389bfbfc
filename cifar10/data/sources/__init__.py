"""Where images come from, a file each.

A source has `name`, `synthetic`, `class_names`, `__init__(root)`, `prepare()` (make the files exist and verify them;
one process calls it) and `load("train" or "test")` -> (images uint8 (N, 3, H, W), contiguous, and labels int64 (N,)).
To add a data set, write such a class in a file here and add it to `SOURCES`.
"""

from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.data.sources.folder import ImageFolder
from cifar10.data.sources.published import CIFAR101
from cifar10.data.sources.shapes import Shapes

SOURCES: dict[str, type] = {"cifar10": CIFAR10, "cifar101": CIFAR101, "shapes": Shapes, "folder": ImageFolder}
