"""What the folders of a data set mean: which is a split, which a class, and which pictures belong to neither."""

import re
from pathlib import Path

from cifar10.data.pictures.tables import SPLIT_WORDS
from cifar10.errors import UserError

Parts = dict[str, tuple[str, ...]]  # by folder, those of its path that are yet to be understood


def place_folders(root: Path, folders: dict[str, int], leaf: bool) -> dict[str, tuple[str, str]]:
    """The split ("" where there are none) and the class of every folder that holds pictures of a class.

    folders: every folder below `root` by its path, with the number of pictures directly in it. leaf: see `list_folder`.
    Raises UserError for folders that cannot be understood, and for classes without a picture.
    """
    parts = {folder: tuple(folder.split("/")) for folder, pictures in folders.items() if folder and pictures}
    splits = dict.fromkeys(parts, "")
    parts = _unwrap(parts, splits)
    if _are_splits(root, parts):
        splits = {folder: split_of(first) for folder, (first, *_) in parts.items()}
        parts = _unwrap({folder: path[1:] for folder, path in parts.items() if len(path) > 1}, splits)
    _check_empty(root, folders, parts, splits)
    return {folder: (splits[folder], "/".join(below) if leaf else below[0]) for folder, below in parts.items()}


def split_of(name: str) -> str:
    """The split that a folder of this name holds: "train", "val" or "test"; "" for other names."""
    return SPLIT_WORDS.get(re.sub(r"[ _-]?(set|data|images)$", "", name.strip().lower()), "")


def _unwrap(parts: Parts, splits: dict[str, str]) -> Parts:
    """Step into folders that are one too deep: the only one of its split, with folders alone in it."""
    while parts and all(len(below) > 1 for below in parts.values()):
        tops = {(splits[folder], below[0]) for folder, below in parts.items()}
        if len(tops) > len({split for split, _ in tops}) or any(not split and split_of(top) for split, top in tops):
            break
        parts = {folder: below[1:] for folder, below in parts.items()}
    return parts


def _are_splits(root: Path, parts: Parts) -> bool:
    """Whether the first folders are splits; "train" beside others is a class if pictures lie right in it."""
    tops = sorted({below[0] for below in parts.values()})
    splits = [top for top in tops if split_of(top)]
    if not splits or splits == tops:
        return bool(splits)
    if any(len(below) > 1 for below in parts.values() if below[0] in splits):
        others = ", ".join(f"{top!r}" for top in tops if top not in splits)
        raise UserError(
            f"{root} has folders of splits ({', '.join(splits)}) beside others with pictures ({others}): "
            "a split's class folders belong in it; move what is neither elsewhere"
        )
    return False


def _check_empty(root: Path, folders: dict[str, int], parts: Parts, splits: dict[str, str]) -> None:
    """UserError for a folder in the place of a class to train on that has no picture; other splits may lack classes."""
    classes = {folder: folder.split("/")[: folder.count("/") + 2 - len(below)] for folder, below in parts.items()}
    filled = {"/".join(path) for path in classes.values()}
    above = {"/".join(path[:-1]) for folder, path in classes.items() if splits[folder] in ("", "train")}
    empty = sorted(folder for folder in folders if folder and folder not in filled and _parent(folder) in above)
    if empty:
        more = f", nor have {len(empty) - 1} more" if len(empty) > 1 else ""
        raise UserError(
            f"{root / empty[0]} has no pictures{more}: put pictures of the class there, or move it elsewhere"
        )


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]
