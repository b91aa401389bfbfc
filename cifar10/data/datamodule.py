"""From a source to batches: split, order, index, and finish each batch on the device.

Images stay uint8 at native size, in a tensor or a store on disk; a batch is one index operation, and everything after
it happens to the whole batch on the device in `on_after_batch_transfer`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from cifar10.data.augmentation import Augmentation
from cifar10.data.batches import Batches
from cifar10.data.feature_cache import FeatureCache, Features
from cifar10.data.loaded import ArrayData
from cifar10.data.picture_data import PictureData
from cifar10.data.preprocessing import WHITE, Preprocessing, check_fit
from cifar10.data.sources import open_source
from cifar10.errors import UserError
from cifar10.machine import fits_on
from cifar10.run_folder import RunFolder

ROOM_FOR_CROPS = 8 / 7  # a store of 256 pixels for a network that takes 224


class CIFAR10DataModule(pl.LightningDataModule):
    """Training, validation and test batches of a source, CIFAR-10 by default.

    root: the source's folder. source: a module of `cifar10.data.sources`. labels, classes: of sources that take them.
    batch_size: images per optimizer step, over all devices. eval_batch_size: the same for validation and test.
    image_size: side in pixels of what the network sees; None leaves it to the model, see `use_preprocessing`.
    val_size, train_size: a number of images, or a fraction of the source's training images (of those that validation
    leaves, for train_size; None takes all of them). Subsets are stratified, and every larger one contains the smaller.
    A val_size of 0 trains without validation.
    split_seed: draws the split, so that it does not depend on `seed`, which orders and augments the batches.
    sampler: "balanced" gives every class an equal share of each epoch, see `balanced_order`; None takes every image.
    crop_padding, flip, cutout, mixup_alpha, cutmix_alpha, crop_scale, jitter, hue, policy, erasing: see `Augmentation`.

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
        sampler: str | None = None,
        crop_padding: int = 0,
        flip: bool | Literal["alternating"] = False,
        cutout: int = 0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        crop_scale: list[float] | None = None,
        jitter: float = 0.0,
        hue: float = 0.0,
        policy: str | None = None,
        erasing: float = 0.0,
        resize: str = "crop",
        background: list[int] | tuple[int, ...] = WHITE,
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
        if not 0 <= seed < math.inf:
            raise ValueError(f"seed={seed}: must be a number from 0 up")
        if not 0 <= split_seed < 2**32:
            raise ValueError(f"split_seed={split_seed}: must be a number from 0 to {2**32 - 1}")
        if sampler not in (None, "balanced"):
            raise ValueError(f"sampler={sampler}: must be balanced, or null for every image once")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size={image_size}: must be at least one pixel")
        check_fit(store_size, resize, background)
        self.source: Any = open_source(source, root, labels=labels, classes=classes)
        sizes = (val_size, train_size, split_seed)
        if hasattr(self.source, "pictures"):
            self.data = PictureData(self.source, *sizes, test_size, max_unreadable, duplicates, cache)
        else:
            self.data = ArrayData(self.source, *sizes)
        self.fit_settings: dict = {"store_size": store_size, "resize": resize, "background": tuple(background)}
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.sampler, self.image_size = seed, sampler, image_size
        self.augmentation = Augmentation(
            crop_padding, flip, cutout, mixup_alpha, cutmix_alpha, crop_scale, jitter, hue, policy, erasing
        )
        self.preprocessing = Preprocessing() if image_size is None else Preprocessing(image_size)
        self.training_preprocessing: Preprocessing | None = None  # where it differs, see `ProgressiveResizing`
        self.is_prepared = False
        self.features: dict[str, FeatureCache] = {}  # of "train" and "val"; served in place of the images if present
        self.served_to: pl.Trainer | None = None
        self.teacher: Tensor | None = None  # probabilities in place of training labels, see `Distillation`

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.data.class_names

    @property
    def loaded(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and labels of the source's "train" and "test"; the same of a source of pictures."""
        return self.data.loaded

    @property
    def indices(self) -> dict[str, Tensor]:
        """Of the images of "train", "val" and "test" in them."""
        return self.data.indices

    def use_classes(self, class_names: Sequence[str]) -> None:
        """Number the classes as a trained model does; the source may lack some. UserError if it has others."""
        self.data.use_classes(class_names)

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
        if preprocessing.store_size is None and isinstance(self.data, PictureData):
            room = ROOM_FOR_CROPS if self.augmentation.crop_scale else 1
            store_size = self.fit_settings["store_size"] or round(room * preprocessing.image_size)
            preprocessing.set_fit(**{**self.fit_settings, "store_size": store_size})
        self.preprocessing = preprocessing

    def keep_split(self, folder: Path, write: bool = True) -> None:
        """Follow the split of pictures in a run's folder, split.csv; call it before `setup`.

        write: draw it if there is none, and keep there what was left out, too. Arrays need nothing of this.
        """
        if isinstance(self.data, PictureData):
            self.data.run, self.data.keeps = RunFolder(folder), write

    def setup(self, stage: str | None = None) -> None:
        """Load what `stage` needs.

        Of arrays, "fit" and "validate" never open the test files, "test" and "predict" never the training files. The
        pictures of all splits are decoded into one store, of which "fit" and "validate" read no test picture.
        """
        if stage == "fit" or self.trainer is not self.served_to:
            self.features, self.training_preprocessing = {}, None  # another model's
        own = getattr(self.trainer and self.trainer.lightning_module, "preprocessing", None)
        self.use_preprocessing(own if isinstance(own, Preprocessing) else self.preprocessing)
        try:
            self.data.load(stage, self.preprocessing, self.fit_settings)
        except ValueError as error:
            raise UserError(f"data.{error}") from error
        if stage in (None, "fit"):
            self.augmentation.check_sides(self.loaded["train"][0].shape[-2:])
        if self.trainer is not None and not len(self.indices.get("val", "unknown")):
            self.trainer.limit_val_batches = 0  # so that callbacks can tell, by `trainer.enable_validation`

    def class_counts(self, stage: str) -> Tensor:
        """The number of a stage's images in each class: int64 (C,)."""
        return self.data.part(stage).labels.bincount(minlength=len(self.class_names))

    def train_dataloader(self) -> "Batches":
        return self._batches("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> "Batches | list":
        return self._batches("val", self.eval_batch_size) if len(self.indices["val"]) else []

    def test_dataloader(self) -> "Batches":
        return self._batches("test", self.eval_batch_size)

    def predict_dataloader(self) -> "Batches":
        return self.test_dataloader()

    def _batches(self, stage: str, batch_size: int, shuffle: bool = False) -> "Batches":
        part = "test" if stage == "test" else "train"
        rank, world_size = 0, 1
        images, labels = self.loaded[part]
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            if device != images.device and fits_on(device, images.nbytes):
                images, labels = self.loaded[part] = images.to(device), labels.to(device)
        batches = Batches(images, labels, self.indices[stage], batch_size, rank, world_size)
        if batches.smallest < world_size:
            key = "batch_size" if stage == "train" else "eval_batch_size"
            raise UserError(
                f"data.{key}={batch_size}: leaves batches of {batches.smallest}, too few for {world_size} processes;"
                f" set {2 * world_size} or more, or use fewer processes"
            )
        batches.features = lambda: self.features.get(stage)
        if shuffle:
            anew = not getattr(self.trainer, "overfit_batches", 0)
            epoch = lambda: self.trainer.current_epoch if self.trainer else 0  # noqa: E731
            batches.teacher = lambda: self.teacher
            batches.shuffle(self.seed, self.augmentation, epoch, anew, self.sampler == "balanced")
        return batches

    def transfer_batch_to_device(self, batch: tuple, device: torch.device, dataloader_idx: int) -> tuple:
        """As Lightning does, but without its slow search of batches that are on the device already."""
        if batch[0].device == device == batch[1].device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: tuple, dataloader_idx: int = 0) -> tuple[Tensor | Features, Tensor]:
        """uint8 images, labels, in training draws -> the network's input (B, 3, S, S), or features, and targets."""
        images, labels, *draws = batch
        if self.features:
            return images, labels
        if draws:  # `trainer.precision` has converted the draws, but not yet what is made here
            preprocessing = self.training_preprocessing or self.preprocessing
            finished = self.augmentation.apply(images, labels, draws[0].float(), preprocessing, len(self.class_names))
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
