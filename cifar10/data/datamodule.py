"""From a source to batches: split, order, index, and finish each batch on the device.

Images stay uint8 at native size, in a tensor or a store on disk; a batch is one index operation, and everything after
it happens to the whole batch on the device in `on_after_batch_transfer`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from cifar10.data.batches import Batches
from cifar10.data.feature_cache import FeatureCache, Features
from cifar10.data.picture_data import PictureData
from cifar10.data.pictures import SPLITS, Part
from cifar10.data.preprocessing import WHITE, Preprocessing, check_fit
from cifar10.data.selection import shown_names
from cifar10.data.sources import open_source
from cifar10.data.split import split
from cifar10.data.transforms import Augmentation
from cifar10.errors import UserError
from cifar10.run_folder import RunFolder


class CIFAR10DataModule(pl.LightningDataModule):
    """Training, validation and test batches of a source, CIFAR-10 by default.

    root: the source's folder. source: a module of `cifar10.data.sources`. labels, classes: of sources that take them.
    batch_size: images per optimizer step, over all devices. eval_batch_size: the same for validation and test.
    image_size: side in pixels of what the network sees; None leaves it to the model, see `use_preprocessing`.
    val_size, train_size: a number of images, or a fraction of the source's training images (of those that validation
    leaves, for train_size; None takes all of them). Subsets are stratified, and every larger one contains the smaller.
    split_seed: draws the split, so that it does not depend on `seed`, which orders and augments the batches.
    crop_padding, flip, cutout, mixup_alpha, cutmix_alpha: see `Augmentation`.

    Of sources of encoded pictures alone:
    resize, background, store_size: how pictures become squares in the store, see `fit`; a store_size of None is the
    network's image size, with room for random crops if there are any. cache: the folder of stores; None: see
    `cifar10.data.store.default_cache`. test_size, max_unreadable, duplicates: see `PictureData`.
    """

    def __init__(
        self,
        root: str = "data",
        source: str = "cifar10",
        labels: str | None = None,
        classes: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        image_size: int | None = None,
        val_size: int | float = 0.2,
        train_size: int | float | None = None,
        split_seed: int = 0,
        seed: int = 0,
        crop_padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        resize: str = "crop",
        background: list[int] = WHITE,
        store_size: int | None = None,
        cache: str | None = None,
        test_size: int | float = 0.2,
        max_unreadable: int | float = 0.01,
        duplicates: Literal["keep", "drop"] = "keep",
    ):
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least one image")
        for name, value, most in (("seed", seed, math.inf), ("split_seed", split_seed, 2**32 - 1)):
            if not 0 <= value <= most or value == math.inf:
                raise ValueError(
                    f"{name}={value}: must be a number from 0 {'up' if most == math.inf else f'to {most}'}"
                )
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size={image_size}: must be at least one pixel")
        check_fit(store_size, resize, background)
        self.source = open_source(source, root, labels=labels, classes=classes)
        sizes = (test_size, val_size, train_size, split_seed)
        is_encoded = hasattr(self.source, "pictures")
        self.pictures = PictureData(self.source, *sizes, max_unreadable, duplicates, cache) if is_encoded else None
        self.fit_settings = {"store_size": store_size, "resize": resize, "background": tuple(background)}
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.train_size = val_size, train_size
        self.split_seed, self.seed = split_seed, seed
        self.augmentation = Augmentation(crop_padding, flip, cutout, mixup_alpha, cutmix_alpha)
        self.image_size = image_size
        self.preprocessing = Preprocessing() if image_size is None else Preprocessing(image_size)
        self.is_prepared = False
        self.trained_names: tuple[str, ...] | None = None  # a model's classes, if they are to number the labels
        self.loaded: dict[str, tuple[Tensor, Tensor]] = {}  # images and labels of the source's "train" and "test"
        self.indices: dict[str, Tensor] = {}  # of each stage's images in them: "train", "val", "test"
        self.features: dict[str, FeatureCache] = {}  # of "train" and "val"; served in place of the images if present
        self.served_to: pl.Trainer | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.trained_names or self.source.class_names

    def use_classes(self, class_names: Sequence[str]) -> None:
        """Number the classes as a trained model does; the source may lack some. UserError if it has others."""
        if set(self.source.class_names) - set(class_names):
            own, others = shown_names(self.source.class_names, class_names)
            raise UserError(f"was trained on the classes {others}; {self.source.name} has {own}")
        self.trained_names = tuple(class_names)

    def prepare_data(self) -> None:
        if not self.is_prepared:
            self.source.prepare()
            self.is_prepared = True

    def use_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Finish batches as a model wants them; `setup` asks the trainer's model for it.

        A new model's learns here how pictures become squares; a trained model's knows already.
        Raises UserError unless its image size is the one requested.
        """
        if self.image_size not in (None, preprocessing.image_size):
            raise UserError(
                f"data.image_size={self.image_size}: the model takes {preprocessing.image_size} pixels; set both to the"
                " same, or leave it to the model"
            )
        if preprocessing.store_size is None and self.pictures is not None:
            preprocessing.set_fit(**self.fit_settings | {"store_size": self.store_size(preprocessing.image_size)})
        self.preprocessing = preprocessing

    def store_size(self, image_size: int) -> int:
        """The side in pixels of stored pictures."""
        return self.fit_settings["store_size"] or image_size

    def keep_split(self, folder: Path, write: bool = True) -> None:
        """Follow the split of pictures in a run's folder; if there is none, draw one and, if `write`, keep it there.

        If `write`, lists of pictures that cannot be read and of those in several splits are written beside it. Call it
        before `setup`. For arrays it does nothing: their split is a function of the settings.
        """
        if self.pictures is not None:
            self.pictures.run, self.pictures.keeps = RunFolder(folder), write

    def setup(self, stage: str | None = None) -> None:
        """Load what `stage` needs.

        Of arrays, "fit" and "validate" never open the test files, "test" and "predict" never the training files. The
        pictures of all splits are decoded into one store, of which "fit" and "validate" read no test picture.
        """
        if stage == "fit" or self.trainer is not self.served_to:
            self.features = {}  # another model's
        preprocessing = getattr(self.trainer and self.trainer.lightning_module, "preprocessing", None)
        if isinstance(preprocessing, Preprocessing):
            self.use_preprocessing(preprocessing)
        try:
            (self._setup_arrays if self.pictures is None else self._setup_pictures)(stage)
        except ValueError as error:
            raise UserError(f"data.{error}") from error

    def _setup_arrays(self, stage: str | None) -> None:
        if stage in (None, "fit", "validate") and "train" not in self.loaded:
            images, labels = self.source.load("train")
            self._check_sides(images)
            train, val = split(labels.numpy(), self.train_size, self.val_size, self.split_seed)
            self.loaded["train"] = images, self._numbered(labels)
            self.indices |= {"train": torch.from_numpy(train), "val": torch.from_numpy(val)}
            if self.preprocessing.store_size is None:  # pictures of other sizes shall become like these
                self.preprocessing.set_fit(**self.fit_settings | {"store_size": min(images.shape[-2:])})
        if stage in ("test", "predict") and "test" not in self.loaded:
            images, labels = self.source.load("test")
            self.loaded["test"] = images, self._numbered(labels)
            self.indices["test"] = torch.arange(len(labels))

    def _setup_pictures(self, stage: str | None) -> None:
        training = stage in (None, "fit")
        if not self.loaded:
            self.pictures.load(self.preprocessing, training)
            labels = self._numbered(torch.from_numpy(self.pictures.pictures.labels))
            self.loaded = dict.fromkeys(("train", "test"), (self.pictures.store.images, labels))
            self.indices = {stage: torch.from_numpy(self.pictures.indices(stage)) for stage in SPLITS}
        if training:
            self._check_sides(self.loaded["train"][0])
        for name in ("train", "val") if training else ("test",) if stage in ("test", "predict") else ():
            if not len(self.indices[name]):
                raise UserError(f"{self.source.name}: has no pictures for the split {name}; add some")

    def _check_sides(self, images: Tensor) -> None:
        """UserError for augmentation that images of these sides cannot take."""
        if self.augmentation.crop_padding >= min(images.shape[-2:]):
            raise UserError(f"data.crop_padding={self.augmentation.crop_padding}: must be below the image's side")
        if self.augmentation.cutout > min(images.shape[-2:]):
            raise UserError(f"data.cutout={self.augmentation.cutout}: must not exceed the image's side")

    def _numbered(self, labels: Tensor) -> Tensor:
        """The source's labels, numbered as the model's classes."""
        if self.class_names == tuple(self.source.class_names):
            return labels
        return torch.tensor([self.class_names.index(name) for name in self.source.class_names])[labels]

    def part(self, stage: str) -> Part:
        """What "train", "val" or "test" consists of, in order; `setup` must have loaded it."""
        images, labels = self.loaded["test" if stage == "test" else "train"]
        indices = self.indices[stage]
        if self.pictures is None:
            return Part(images, indices, labels[indices])
        files = [self.pictures.pictures.files[index] for index in indices]
        return Part(images, indices, labels[indices], files, self.pictures.store.digests[indices.numpy()])

    def class_counts(self, stage: str) -> Tensor:
        """Images of each class in "train" or "val": int64 (C,)."""
        return self.part(stage).labels.bincount(minlength=len(self.class_names))

    def train_dataloader(self) -> "Batches":
        return self._batches("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> "Batches":
        return self._batches("val", self.eval_batch_size)

    def test_dataloader(self) -> "Batches":
        return self._batches("test", self.eval_batch_size)

    def predict_dataloader(self) -> "Batches":
        return self.test_dataloader()

    def _batches(self, stage: str, batch_size: int, shuffle: bool = False) -> "Batches":
        part = "test" if stage == "test" else "train"
        rank, world_size = 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            if device != self.loaded[part][0].device and fits(self.loaded[part][0], device):
                self.loaded[part] = tuple(tensor.to(device) for tensor in self.loaded[part])
        images, labels = self.loaded[part]
        batches = Batches(images, labels, self.indices[stage], batch_size, rank, world_size)
        if batches.smallest < world_size:
            key = "batch_size" if stage == "train" else "eval_batch_size"
            raise UserError(
                f"data.{key}={batch_size}: leaves batches of {batches.smallest}, too few for {world_size} processes;"
                f" set {2 * world_size} or more, or use fewer processes"
            )
        batches.features = lambda: self.features.get(stage)
        if shuffle:
            anew = not (self.trainer and self.trainer.overfit_batches)
            epoch = lambda: self.trainer.current_epoch if self.trainer else 0  # noqa: E731
            batches.shuffle(self.seed, self.augmentation, epoch, anew)
        return batches

    def transfer_batch_to_device(self, batch: tuple, device: torch.device, dataloader_idx: int) -> tuple:
        """As Lightning does, but without its slow search of batches that are on the device already."""
        if batch[0].device == device == batch[1].device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: tuple, dataloader_idx: int = 0) -> tuple[Tensor | Features, Tensor]:
        """uint8 images, labels and, in training, draws -> the network's input (B, 3, S, S) and its targets.

        Features that are served in place of images are passed on as they are.
        """
        images, labels, *draws = batch
        if self.features:
            return images, labels
        if draws:  # `trainer.precision` has converted the draws, but not yet what is made here
            classes = len(self.class_names)
            finished = self.augmentation.apply(images, labels, draws[0].float(), self.preprocessing, classes)
        else:
            finished = self.preprocessing(images), labels
        return self.trainer.precision_plugin.convert_input(finished) if self.trainer else finished

    def serve(self, features: dict[str, FeatureCache]) -> None:
        """Serve the trainer these features of "train" and "val" from the next epoch on; if none, images again."""
        self.features, self.served_to = features, self.trainer

    def fixed_view(self, stage: str, places: Tensor, view: int, device: torch.device) -> Tensor:
        """A fixed view of the images at these places of a stage, as the network's input on the device."""
        images = self.loaded["train"][0]
        images = images[self.indices[stage][places].to(images.device)].to(device)
        rng = np.random.default_rng([self.seed, view])
        draws = torch.from_numpy(rng.random((len(self.indices[stage]), 2), dtype=np.float32))[places]
        return self.augmentation.view(images, view, draws.to(device), self.preprocessing)

    def check_views(self, views: int) -> None:
        """UserError for augmentation that fixed views rule out."""
        setting = f"callbacks.feature_caching.views={views}"
        for name in ("cutout", "mixup_alpha", "cutmix_alpha"):
            if getattr(self.augmentation, name):
                raise UserError(f"{setting}: data.{name} needs new random numbers every epoch; set either to 0")
        if views > 1 and not (self.augmentation.flip or self.augmentation.crop_padding):
            raise UserError(f"{setting}: without data.flip and data.crop_padding all views are the same; set it to 1")


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether the set can live on the device: in half of a GPU's free memory at most, as the network needs the rest."""
    return device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
