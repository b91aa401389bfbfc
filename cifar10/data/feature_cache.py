"""Features of a frozen network, computed once and kept, instead of again in every epoch.

`cifar10.callbacks.feature_caching` fills one cache for training and one for validation; the data module serves batches
from them in place of images.
"""

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from cifar10.errors import UserError
from cifar10.machine import fits_on, free_memory, size

log = logging.getLogger(__name__)


class Features(NamedTuple):
    """A batch that has already been through the frozen part of a network: values (B, ...) in place of images."""

    values: Tensor

    @property
    def device(self) -> torch.device:
        return self.values.device

    def input(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values as a network takes them: in half precision under autocast, else in `dtype`, the network's own."""
        return self.values if torch.is_autocast_enabled(self.values.device.type) else self.values.to(dtype)


class FeatureCache:
    """Features (count, views, ...) of `count` images in half precision, on the device, in memory or in a file.

    It lives where it fits: in half of the device's free memory, else in half of the free host memory, else in a file
    in `folder`, mapped into memory, which disappears with the process however that ends.
    processes: on this machine, each of which keeps a cache in memory.
    example: features (B, C, H, W) or (B, C) of any batch, for their shape and precision: bfloat16 stays, all else
    becomes float16, which changes results by less than another random seed does.
    Raises UserError if neither memory nor the disk has room for it.
    """

    def __init__(
        self, count: int, views: int, example: Tensor, device: torch.device, folder: str | Path, processes: int = 1
    ):
        shape = example.movedim(1, -1).shape[1:]  # channels last, as the network wants them
        dtype = torch.bfloat16 if example.dtype == torch.bfloat16 else torch.float16
        self.views = views
        self.nbytes = count * views * shape.numel() * dtype.itemsize
        if fits_on(device, self.nbytes):
            self.place = "on the GPU"
            self.rows = torch.empty(count * views, *shape, dtype=dtype, device=device)
        elif self.nbytes * processes < free_memory() / 2:
            self.place = "in memory"
            self.rows = torch.empty(count * views, *shape, dtype=dtype)
        else:
            self.place = f"in a file in {folder}"
            self.rows = map_file(Path(folder), self.nbytes).view(dtype).view(count * views, *shape)

    def write(self, images: Tensor, view: int, features: Tensor) -> None:
        """Keep the features (B, C, ...) of one view of these images: int (B,), their places in the cache."""
        kept = features.movedim(1, -1).to(self.rows.dtype)
        if not kept.isfinite().all():
            raise UserError(
                f"callbacks.feature_caching.views: features reach {features.abs().max():.3g}, more than {kept.dtype}"
                " can hold; set it to 0, or check the weights"
            )
        self.rows[(images * self.views + view).to(self.rows.device)] = kept.to(self.rows.device)

    def read(self, images: Tensor, view: Tensor | int) -> Tensor:
        """The features (B, C, ...), channels last, of these images: int (B,), each in its view."""
        values = self.rows[(images * self.views + view).to(self.rows.device)]
        return values.movedim(-1, 1)


def fill(
    shape: tuple[int, int],
    inputs: Callable[[Tensor, int], Tensor],
    network: Callable[[Tensor], Tensor],
    batch_size: int,
    device: torch.device,
    folder: str | Path,
    trainer: pl.Trainer | None,
    advance: Callable[[int], None],
) -> FeatureCache:
    """A cache of a network's outputs for (images, views) inputs; each of the trainer's processes computes its shard.

    inputs: (places (B,), view) -> the network's input (B, ...). advance: called with the size of each batch.
    """
    rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
    count, views = shape
    batch_size = -(-batch_size // world_size) * world_size
    cache: Any = None
    for view, start in itertools.product(range(views), range(0, count, batch_size)):
        left = min(batch_size, count - start)
        # The last batch repeats the last image until every process has equally many.
        places = torch.arange(start, start - (-left // world_size) * world_size).clamp(max=count - 1)
        features = network(inputs(places[rank::world_size], view))
        if trainer and world_size > 1:
            features = trainer.strategy.all_gather(features).transpose(0, 1).flatten(0, 1)
        if cache is None:
            cache = FeatureCache(count, views, features, device, folder, trainer.num_devices if trainer else 1)
            if trainer and world_size > 1:
                trainer.strategy.barrier()  # all check how much memory is free before any takes some
        cache.write(places, view, features)
        advance(left)
    return cache


def map_file(folder: Path, nbytes: int) -> Tensor:
    """A uint8 tensor of `nbytes` in an unnamed file in `folder`; UserError if the disk has no room for it."""
    free = shutil.disk_usage(folder).free
    if nbytes > 0.9 * free:
        raise UserError(
            f"callbacks.feature_caching.views: the features take {size(nbytes)}; neither memory nor {folder}"
            f" ({size(free)} free) has room; use fewer views, a smaller data.image_size, or 0 for no cache"
        )
    handle, name = tempfile.mkstemp(prefix=".features-", dir=folder)
    try:
        os.posix_fallocate(handle, 0, nbytes)  # a full disk is an error now, not a signal in mid-training
        return torch.from_file(name, shared=True, size=nbytes, dtype=torch.uint8)
    finally:
        os.close(handle)
        os.unlink(name)  # the mapping keeps it until the process ends
