"""What a data module has loaded of its source: arrays here, encoded pictures in `cifar10.data.picture_data`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cifar10.data.pictures import Part
from cifar10.data.pictures.selection import shown_names
from cifar10.data.preprocessing import Preprocessing
from cifar10.data.sources import PictureSource, Source
from cifar10.data.split import split
from cifar10.errors import UserError


class LoadedData:
    """Images and labels by the source's "train" and "test", and the indices in them of "train", "val" and "test".

    class_names: what the labels number; those of the source, or a model's, of which the source may lack some.
    """

    def __init__(self, source: Source | PictureSource):
        self.source: Any = source  # which of the two, the subclass knows
        self.trained_names: tuple[str, ...] | None = None
        self.loaded: dict[str, Any] = {}
        self.indices: dict[str, Tensor] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.trained_names or tuple(self.source.class_names)

    def use_classes(self, class_names: Sequence[str]) -> None:
        """Number the classes as a trained model does; the source may lack some. UserError if it has others."""
        if set(self.source.class_names) - set(class_names):
            own, others = shown_names(self.source.class_names, class_names)
            raise UserError(f"was trained on the classes {others}; {self.source.name} has {own}")
        self.trained_names = tuple(class_names)

    def numbered(self, labels: Tensor) -> Tensor:
        """The source's labels as numbers of `class_names`."""
        own = tuple(self.source.class_names)
        return (
            labels if own == self.class_names else torch.tensor([self.class_names.index(name) for name in own])[labels]
        )

    def part(self, stage: str) -> Part:
        """The images of "train", "val" or "test", in order."""
        images, labels = self.loaded["test" if stage == "test" else "train"]
        return Part(images, self.indices[stage], labels[self.indices[stage].to(labels.device)])


class ArrayData(LoadedData):
    """A source of arrays; val_size, train_size, split_seed: see `CIFAR10DataModule`."""

    def __init__(self, source: Source, val_size: int | float, train_size: int | float | None, split_seed: int):
        super().__init__(source)
        self.sizes, self.split_seed = (train_size, val_size), split_seed

    def load(self, stage: str | None, preprocessing: Preprocessing, fit: dict[str, Any]) -> None:
        """Load what is needed; `fit` and `validate` never open the test files, `test` and `predict` no others.

        fit: for a preprocessing that does not know yet how pictures of other sizes become like these.
        """
        if stage in (None, "fit", "validate") and "train" not in self.loaded:
            images, labels = self.source.load("train")
            train, val = split(labels.numpy(), *self.sizes, self.split_seed)
            self.loaded["train"] = images, self.numbered(labels)
            self.indices |= {"train": torch.from_numpy(train), "val": torch.from_numpy(val)}
        if stage in ("test", "predict") and "test" not in self.loaded:
            images, labels = self.source.load("test")
            self.loaded["test"] = images, self.numbered(labels)
            self.indices["test"] = torch.arange(len(labels))
        if preprocessing.store_size is None:
            images, _ = next(iter(self.loaded.values()))
            preprocessing.set_fit(**{**fit, "store_size": min(images.shape[-2:])})
