"""What `images=` names, as pictures: files, folders, globs, or one picture on standard input."""

import sys
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

from cifar10.data.pictures.classes import natural
from cifar10.data.pictures.scan import scan
from cifar10.errors import UserError

STANDARD_INPUT = "-"


class Input(NamedTuple):
    """name: as it is shown. picture: the file, or what came through standard input."""

    name: str
    picture: bytes | Path


def find_inputs(images: str | Sequence[str] | None) -> list[Input]:
    """The pictures that `images` names, in order, those of a folder or glob as a person sorts; UserError if none."""
    patterns = [images] if isinstance(images, str) else list(images or ())
    if not any(patterns):
        raise UserError("images: which pictures? images=photo.jpg, a folder, a glob, - or 'images=[a.jpg,b.jpg]'")
    return [found for pattern in patterns for found in expand(pattern)]


def expand(pattern: str) -> list[Input]:
    """The pictures that a file, a folder, a glob or - stands for; UserError if there are none."""
    path = Path(pattern).expanduser()
    if pattern == STANDARD_INPUT:
        return [Input(pattern, sys.stdin.buffer.read())]
    if path.is_dir():
        found = files_in(path)
    elif path.exists():
        found = [path]
    elif any(mark in pattern for mark in "*?["):
        matches = sorted(glob(str(path), recursive=True), key=natural)
        found = [Path(match) for match in matches if not Path(match).is_dir()]
    else:
        several = "; several: 'images=[a.jpg,b.jpg]'" if "," in pattern else ""
        raise UserError(f"images={pattern}: no such file or folder{several}")
    if not found:
        raise UserError(f"images={pattern}: {'has no pictures in it' if path.is_dir() else 'nothing matches'}")
    return [Input(str(file), file) for file in found]


def files_in(folder: Path) -> list[Path]:
    """Every picture below a folder."""
    found = scan(folder).folders
    names = [f"{below}/{picture.name}" if below else picture.name for below in found for picture in found[below]]
    return [folder / name for name in sorted(names, key=natural)]
