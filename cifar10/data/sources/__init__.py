"""Data sets, one module each: `source: NAME` in conf/data/ is the one public class of `NAME.py` in this folder."""

import difflib
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from cifar10.data.pictures import Pictures


class Source(Protocol):
    """What a data set's class provides; nothing else of it is used.

    class_names: in the order of the labels, known once `prepare` has run. synthetic: drawn rather than photographed,
    which logs and reports then point out. name: what they call the data set.
    """

    name: str
    synthetic: bool

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __init__(self, root: str | Path) -> None:
        """root: the data set's folder; reads nothing yet."""

    def prepare(self) -> None:
        """Make sure that the files exist and are sound, downloading them if need be; one process calls it.

        Raises UserError naming the file.
        """

    def load(self, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, H, W), contiguous (memory-mapped ones will do), and labels int64 (N,)."""
        ...


class PictureSource(Protocol):
    """A data set of encoded pictures of any size, such as JPEG files: `pictures` takes the place of `load`.

    They are decoded into a store (`cifar10.data.store`) at the size that the network needs.
    """

    name: str
    synthetic: bool

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __init__(self, root: str | Path, **options: str) -> None:
        """root: the data set's folder; options: settings of the data section that this source alone has."""

    def prepare(self) -> None: ...

    def pictures(self) -> Pictures:
        """All pictures of all splits, listed but not opened; the same object at every call."""
        ...


def find_source(name: str) -> type:
    """The class of a data set. Raises ValueError for a name without a module here."""
    available = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in available:
        near = difflib.get_close_matches(name, available, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"source={name}: no such source; {hint}available: {', '.join(sorted(available))}")
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define one public class, the source, but defines {len(classes)}")
    return classes[0]


def open_source(name: str, root: str, **options: str | None) -> Source | PictureSource:
    """A data set in a folder; options: those that are None are left out.

    Raises ValueError for a name without a module here, and for an option that this source does not have.
    """
    found = find_source(name)
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if key not in inspect.signature(found).parameters:
            raise ValueError(f"{key}={value}: source={name} has no such setting; leave it out")
    return found(root, **given)
