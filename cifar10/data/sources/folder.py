"""Images in folders, one a class: found, and made equally large."""

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
from tqdm import tqdm

from cifar10.errors import UserError, cause_of


class ImageFolder:
    """Images in `<root>/train/<class>/` and `<root>/test/<class>/`, each resized and centre-cropped to `size` x `size`.

    The folders under train name the classes, in sorted order. Training does without a test folder.
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
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(partial(read_image, size=self.size), paths)
            bar = tqdm(decoded, desc=f"reading {split} images", total=len(paths), disable=None, leave=False)
            for index, image in enumerate(bar):
                images[index] = image
        return images, torch.tensor(labels)

    def _files(self, split: str) -> list[tuple[str, int]]:
        """The split's image files in a fixed order, each with its label."""
        folder = self.root / split
        if (found := _class_folders(folder)) != self.class_names:
            different = ", ".join(sorted(set(found) ^ set(self.class_names)))
            raise UserError(f"{folder} must hold the same class folders as {self.root / 'train'}, unlike: {different}")
        files = []
        for label, name in enumerate(self.class_names):
            if not (paths := _image_files(folder / name)):
                raise UserError(f"{folder / name} holds no image ({' '.join(IMG_EXTENSIONS)})")
            files += [(path, label) for path in paths]
        return files


def read_image(path: str | Path, size: int) -> Tensor:
    """Read an image file as upright RGB, its shorter side resized to `size`, centre-cropped: uint8 (3, size, size).

    Transparency is left out, 16-bit grey becomes 8-bit, and of several frames the first is taken.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise OSError("it is no file")
        with Image.open(path) as file:
            image = _rgb(ImageOps.exif_transpose(file), file.format)
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and its own for damaged files
        raise UserError(f"cannot read the image {path} ({cause_of(error)}): replace or remove it") from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow makes all above 255 white
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, of which none is known to be white")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns
    return image.convert("RGB")


def _class_folders(folder: Path) -> tuple[str, ...]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder} ({cause_of(error)}): images belong in {folder}/<class>/") from error
    if not names:
        raise UserError(f"{folder} holds no class folder: images belong in {folder}/<class>/")
    if odd := [name for name in names if not name.isprintable()]:
        raise UserError(f"{folder} holds a class folder {odd[0]!a} that cannot be printed: give it another name")
    return tuple(names)


def _image_files(folder: Path) -> list[str]:
    """The image files under `folder` in a fixed order; a folder that is linked to is entered once."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder {error.filename} ({cause_of(error)})") from error

    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(place)) in seen:  # a link in a circle
            folders.clear()
            continue
        seen.add(real)
        found += [(place, name) for name in names if name.lower().endswith(IMG_EXTENSIONS)]
    return [os.path.join(*file) for file in sorted(found)]
