"""A folder of images with a subfolder per class, all resized to the same size."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from cifar10.errors import UserError, cause_of
from cifar10.progress import Progress


class ImageFolder:
    """Images in `<root>/train/<class>/` and `<root>/test/<class>/`, resized and centre-cropped to `size` pixels square.

    The classes are the folders under train, in sorted order. Training needs no test folder.
    """

    synthetic = False

    def __init__(self, root: str | Path, size: int = 64) -> None:
        self.root = Path(root).expanduser()
        self.size = size
        self.name = f"images in {root}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return _class_folders(self.root / "train")

    def prepare(self) -> None:
        self._files("train")
        if (self.root / "test").is_dir():
            self._files("test")

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        paths, labels = zip(*self._files(split), strict=True)
        images = torch.empty(len(paths), 3, self.size, self.size, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool, Progress(len(paths), f"reading {split} images") as progress:
            for index, image in enumerate(pool.map(partial(read_image, size=self.size), paths)):
                images[index] = image
                progress.update(1)
        return images, torch.tensor(labels)

    def _files(self, split: str) -> list[tuple[str, int]]:
        """The split's image files in a fixed order, each with its label."""
        folder = self.root / split
        if (found := _class_folders(folder)) != self.class_names:
            different = ", ".join(sorted(set(found) ^ set(self.class_names)))
            raise UserError(f"{folder} must have the class folders of {self.root / 'train'}; not in both: {different}")
        files = []
        for label, name in enumerate(self.class_names):
            if not (paths := _image_files(folder / name)):
                raise UserError(f"{folder / name} has no images ({' '.join(IMG_EXTENSIONS)})")
            files += [(path, label) for path in paths]
        return files


def read_image(path: str | Path, size: int) -> Tensor:
    """An image file as upright RGB, its shorter side resized to `size`, then centre-cropped: uint8 (3, size, size).

    Transparency is dropped, 16-bit grey becomes 8-bit, and an animation becomes its first frame.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading from a pipe would wait forever
            raise OSError("not a regular file")
        with Image.open(path) as file:
            image = _rgb(ImageOps.exif_transpose(file), file.format)
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and its own for damaged files
        raise UserError(f"cannot read the image {path} ({cause_of(error)}): replace or remove it") from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would clip to 255
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no defined white level")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # otherwise Pillow warns
    return image.convert("RGB")


def _class_folders(folder: Path) -> tuple[str, ...]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder} ({cause_of(error)}): put images in {folder}/<class>/") from error
    if not names:
        raise UserError(f"{folder} has no class folders: put images in {folder}/<class>/")
    if odd := [name for name in names if not name.isprintable()]:
        raise UserError(f"{folder} has a class folder whose name cannot be printed, {odd[0]!a}: rename it")
    return tuple(names)


def _image_files(folder: Path) -> list[str]:
    """The image files under `folder` in a fixed order; links are followed, but no folder is entered twice."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder {error.filename} ({cause_of(error)})") from error

    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(place)) in seen:  # a circular link
            folders.clear()
            continue
        seen.add(real)
        found += [(place, name) for name in names if name.lower().endswith(IMG_EXTENSIONS)]
    return [os.path.join(*file) for file in sorted(found)]
