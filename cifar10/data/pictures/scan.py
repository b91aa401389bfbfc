"""What lies in a folder: which files are pictures, by their names or first bytes, and what is passed over."""

import mimetypes
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cifar10.data.pictures.decode import FORMATS
from cifar10.errors import UserError, cause_of
from cifar10.progress import Progress

SIDE_FOLDERS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
HIDDEN = "hidden files and folders"
# TIFF is missing, as cameras' raw files begin like it.
BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|\0\0\0\x0cjP  "
    rb"|.{4}ftyp(avif|avis|heic|heix|hevc|mif1|msf1)",
    re.DOTALL,
)


class Found(NamedTuple):
    """A picture: its name in its folder, and what tells whether it has changed."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int


class Scan(NamedTuple):
    """folders: every folder by its path from the root ("" is the root itself), with the pictures directly in it."""

    folders: dict[str, list[Found]]
    skipped: Counter[str]


def scan(root: Path) -> Scan:
    """All pictures under `root`, in no particular order. Links are followed, but into no folder from inside itself.

    Raises UserError naming a folder that cannot be read.
    """
    found = Scan({}, Counter())
    # a folder; where it and those above it really are
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    with Progress(None, f"listing {root}") as progress:
        while waiting:
            folder, places = waiting.pop()
            found.folders[folder] = []
            path = os.path.join(root, folder) if folder else str(root)
            try:
                for entry in _visible(path, found.skipped):
                    info = _stat(entry)
                    if stat.S_ISDIR(info.st_mode):
                        place = os.path.realpath(entry.path) if entry.is_symlink() else f"{places[-1]}/{entry.name}"
                        if place not in places:
                            waiting.append((f"{folder}/{entry.name}" if folder else entry.name, (*places, place)))
                    elif word := _passed_over(entry, info.st_mode):
                        found.skipped[word] += 1
                    else:
                        picture = Found(entry.name, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
                        found.folders[folder].append(picture)
            except OSError as error:
                raise UserError(f"cannot read the folder {path} ({cause_of(error)})") from error
            progress.update(len(found.folders[folder]))
    return found


def _visible(folder: str, skipped: Counter[str]) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SIDE_FOLDERS:
                skipped[HIDDEN] += 1
            else:
                yield entry


def _stat(entry: os.DirEntry) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link to nothing, which is listed, so that it is named among the unreadable pictures
        return entry.stat(follow_symlinks=False)


def _passed_over(entry: os.DirEntry, mode: int) -> str:
    """What the file is, in the plural, unless it is a picture."""
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return "pipes, sockets and devices"
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in picture_suffixes() or (suffix not in _other_suffixes() and _begins_like_a_picture(entry.path)):
        return ""
    return f"{suffix} files" if re.fullmatch(r"\.[a-z0-9_]{1,10}", suffix) else "other files"


def _begins_like_a_picture(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return BEGINNINGS.match(file.read(16)) is not None
    except OSError:
        return False


@cache
def picture_suffixes() -> frozenset[str]:
    """Those of the formats that `read_picture` reads, or would with an extra: lower case, with the dot."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")}
    return frozenset(known | {".avif", ".heic", ".heif", ".hif"})


@cache
def _other_suffixes() -> frozenset[str]:
    """Suffixes with a meaning of their own: these files are not opened to look for pictures."""
    return frozenset(mimetypes.MimeTypes().types_map[True]) - picture_suffixes()
