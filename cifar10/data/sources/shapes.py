"""Ten drawn shapes: a data set that needs no download.

A small CNN learns it but a linear model does not: position, size, angle and colours are independent of the class.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy import ndarray
from torch import Tensor

from cifar10.data.batch_files import META_FILE, TEST_FILE, TRAIN_FILES, dump_batch, load_batches
from cifar10.errors import UserError, cause_of
from cifar10.files import scratch_folder

_SIZE = 32
_ANY_ANGLE = 180
_SMALL_ANGLE = 12  # a square stays a square, a horizontal bar stays horizontal


def _disc(x: ndarray, y: ndarray) -> ndarray:
    return np.sqrt(x * x + y * y) - 0.95


def _square(x: ndarray, y: ndarray) -> ndarray:
    return np.maximum(abs(x), abs(y)) - 0.85


def _triangle(x: ndarray, y: ndarray) -> ndarray:
    return np.maximum(y, 0.866 * abs(x) - 0.5 * y) - 0.6


def _diamond(x: ndarray, y: ndarray) -> ndarray:
    return 0.87 * abs(x) + 0.5 * abs(y) - 0.55


def _cross(x: ndarray, y: ndarray) -> ndarray:
    return np.maximum(np.minimum(abs(x), abs(y)) - 0.27, np.maximum(abs(x), abs(y)) - 1.0)


def _ring(x: ndarray, y: ndarray) -> ndarray:
    return abs(np.sqrt(x * x + y * y) - 0.78) - 0.2


def _star(x: ndarray, y: ndarray) -> ndarray:
    # Inside a pentagram is inside at least four of its five lines, so the second largest distance decides.
    angles = [math.tau * k / 5 for k in range(5)]
    lines = np.stack([math.sin(angle) * x + math.cos(angle) * y for angle in angles])
    return np.sort(lines, axis=0)[-2] - 0.38


def _horizontal_bars(x: ndarray, y: ndarray) -> ndarray:
    bars = np.minimum(abs(y), abs(abs(y) - 0.75)) - 0.19
    return np.maximum(bars, abs(x) - 0.95)


def _vertical_bars(x: ndarray, y: ndarray) -> ndarray:
    return _horizontal_bars(y, x)


def _checkerboard(x: ndarray, y: ndarray) -> ndarray:
    # Four by four cells of half a radius: `across` and `down` change sign at every cell border.
    across, down = (0.25 - abs((c + 0.25) % 1.0 - 0.5) for c in (x, y))
    cells = -np.sign(across * down) * np.minimum(abs(across), abs(down))
    return np.maximum(cells, np.maximum(abs(x), abs(y)) - 1.0)


# name -> (signed distance to the outline in radii, negative inside; the largest rotation in degrees)
_SHAPES: dict[str, tuple[Callable[[ndarray, ndarray], ndarray], int]] = {
    "circle": (_disc, _ANY_ANGLE),
    "square": (_square, _SMALL_ANGLE),
    "triangle": (_triangle, _ANY_ANGLE),
    "diamond": (_diamond, _SMALL_ANGLE),
    "cross": (_cross, _ANY_ANGLE),
    "ring": (_ring, _ANY_ANGLE),
    "star": (_star, _ANY_ANGLE),
    "horizontal bars": (_horizontal_bars, _SMALL_ANGLE),
    "vertical bars": (_vertical_bars, _SMALL_ANGLE),
    "checkerboard": (_checkerboard, _SMALL_ANGLE),
}
SHAPE_NAMES = tuple(_SHAPES)


def draw_shapes(count: int, seed: int) -> tuple[ndarray, ndarray]:
    """Images uint8 (count, 3, 32, 32) and labels int64 (count,), balanced and shuffled."""
    rng = np.random.RandomState(seed)  # its stream is the same in every version of NumPy
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(_SHAPES))
    radius = rng.uniform(5, 13, (count, 1, 1))
    centre = 15.5 + rng.uniform(-1, 1, (2, count, 1, 1)) * (15.5 - radius)
    turn = rng.uniform(-1, 1, count)
    background = rng.randint(0, 256, (count, 3, 1, 1), np.int16)
    foreground = (background + rng.randint(40, 217, (count, 3, 1, 1), np.int16)) % 256  # 40 or more apart
    slope = rng.uniform(-1.5, 1.5, (2, count, 1, 1, 1))
    noise = rng.randint(-50, 51, (count, 3, _SIZE, _SIZE), np.int16)

    coverage = np.empty((count, 1, _SIZE, _SIZE))  # of each pixel by the shape, 0 to 1
    row, column = np.ogrid[:_SIZE, :_SIZE]
    x, y = (column - centre[0]) / radius, (row - centre[1]) / radius
    for label, (distance, largest_turn) in enumerate(_SHAPES.values()):
        mine = labels == label
        angle = np.radians(largest_turn * turn[mine])[:, None, None]
        cos, sin = np.cos(angle), np.sin(angle)
        outline = distance(cos * x[mine] + sin * y[mine], cos * y[mine] - sin * x[mine])
        coverage[mine, 0] = np.clip(0.5 - outline * radius[mine], 0, 1)  # one pixel of antialiasing

    shade = slope[0] * (column - 15.5) + slope[1] * (row - 15.5)
    images = background + shade + coverage * (foreground - background) + noise
    return np.clip(np.rint(images), 0, 255).astype(np.uint8), labels


def write_cifar10_files(folder: str | Path, images_per_batch: int = 2000) -> None:
    """Write five training batches, a test batch and `batches.meta` into `folder`, creating it if needed.

    Readers of the official files expect it to be called `cifar-10-batches-py`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, file_name in enumerate((TEST_FILE, *TRAIN_FILES)):
        images, labels = draw_shapes(images_per_batch, seed)
        names = [SHAPE_NAMES[label].replace(" ", "_") for label in labels]
        batch = {
            b"batch_label": b"training batch %d of 5" % seed if seed else b"testing batch 1 of 1",
            b"labels": labels.tolist(),
            b"data": images.reshape(images_per_batch, -1),
            b"filenames": [f"{name}_s_{number:06d}.png".encode() for number, name in enumerate(names)],
        }
        dump_batch(batch, folder / file_name)
    meta = {
        b"num_cases_per_batch": images_per_batch,
        b"label_names": [name.encode() for name in SHAPE_NAMES],
        b"num_vis": 3 * _SIZE * _SIZE,
    }
    dump_batch(meta, folder / META_FILE)


class Shapes:
    """Drawn images in CIFAR-10's file format in `<root>/shapes/cifar-10-batches-py/`, written if absent."""

    name = "shapes (drawn images, not CIFAR-10)"
    synthetic = True
    class_names = SHAPE_NAMES

    def __init__(self, root: str | Path) -> None:
        self.folder = Path(root).expanduser() / "shapes" / "cifar-10-batches-py"

    def prepare(self) -> None:
        if not self._absent():
            return
        try:
            with scratch_folder(self.folder.parent) as scratch:
                if not (absent := self._absent()):
                    return  # another process wrote them while this one waited
                write_cifar10_files(scratch)
                self.folder.mkdir(exist_ok=True)
                for name in absent:
                    (scratch / name).replace(self.folder / name)
        except OSError as error:
            raise UserError(
                f"cannot write the drawn images to {self.folder} ({cause_of(error)}): "
                "set data.root=FOLDER to a writable folder"
            ) from error

    def _absent(self) -> list[str]:
        names = (*TRAIN_FILES, TEST_FILE, META_FILE)
        return [name for name in names if not (self.folder / name).is_file() and not (self.folder / name).is_dir()]

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        return load_batches(self.folder, TRAIN_FILES if split == "train" else (TEST_FILE,), len(self.class_names))
