"""Batches of images held in memory, each one index operation; several processes share each batch."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from cifar10.data.augmentation import FIRST_FLIPS, FLIP, Augmentation
from cifar10.data.feature_cache import FeatureCache, Features
from cifar10.data.pictures import stream


class Batches:
    """Batches of a split, (images, labels) or, once shuffled, (images, labels, draws), each one index operation.

    An epoch's order and every image's random numbers, `draws`, are a pure function of (seed, epoch): no generator's
    state has to be saved. Batches differ by at most one image in size, so that none is too small for batch
    normalisation. Each of several processes takes its shard of every batch, see `shard`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.images, self.labels, self.indices = images, labels, indices
        self.rank, self.world_size = rank, world_size
        steps = -(-len(indices) // batch_size)
        self.bounds = np.linspace(0, len(indices), steps + 1).round().astype(int).tolist()
        self.augmentation: Augmentation | None = None
        self.features: Callable[[], FeatureCache | None] = lambda: None  # to serve in place of the images
        self.teacher: Callable[[], Tensor | None] = lambda: None  # to serve in place of the labels
        self.delivered = self.skip = self.epoch = self.skip_in = 0

    def shuffle(
        self,
        seed: int,
        augmentation: Augmentation,
        current_epoch: Callable[[], int],
        anew: bool = True,
        balanced: bool = False,
    ) -> None:
        """Shuffle from now on, and draw the numbers that `augmentation` needs; anew: new ones every epoch.

        balanced: every class takes an equal share of the epoch, see `balanced_order`.
        """
        self.seed, self.augmentation, self.current_epoch, self.anew = seed, augmentation, current_epoch, anew
        self.balanced = balanced

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def smallest(self) -> int:
        """Images in the smallest batch."""
        return min(stop - start for start, stop in itertools.pairwise(self.bounds))

    def shard(self, number: int) -> slice | Tensor:
        """Where in the epoch's order this process's images of a batch stand.

        Shards differ by at most one image, or by two where images are mixed: an image and its partner, which lies at
        the mirrored position in the batch, stay together, mirrored in the shard.
        """
        start, stop = self.bounds[number : number + 2]
        pairs, odd = divmod(stop - start, 2)
        mixed = self.augmentation is not None and (self.augmentation.mixup_alpha or self.augmentation.cutmix_alpha)
        if not mixed or self.world_size == 1 or pairs < self.world_size:
            return slice(start + self.rank, stop, self.world_size)
        first = torch.arange(start + self.rank, start + pairs, self.world_size)
        alone = odd and pairs % self.world_size == self.rank  # the image in the middle is its own partner
        middle = first.new_full((int(alone),), start + pairs)
        return torch.cat([first, middle, start + stop - 1 - first.flip(0)])

    def weight(self, number: int) -> float:
        """The factor for the mean loss of this process's shard of a batch.

        With it the mean over processes is the mean over the images of the batch, though shards differ in size.
        """
        start, stop = self.bounds[number : number + 2]
        shard = self.shard(number)
        images = len(range(*shard.indices(stop))) if isinstance(shard, slice) else len(shard)
        return images * self.world_size / (stop - start)

    def state_dict(self) -> dict:
        """How many batches of which epoch have been delivered; Lightning keeps it in checkpoints."""
        return {"delivered": self.delivered, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue the epoch where it stopped; one that was finished, or stopped for good, is not repeated."""
        self.skip, self.skip_in = state_dict["delivered"] % len(self), state_dict["epoch"]

    def __iter__(self) -> Iterator[tuple]:
        places, draws, features = torch.arange(len(self.indices)), None, self.features()
        self.epoch = 0 if self.augmentation is None else self.current_epoch()
        if self.augmentation is not None:
            drawn = self.epoch if self.anew else 0
            rng = np.random.default_rng([self.seed, drawn])
            places = torch.from_numpy(
                balanced_order(self.labels[self.indices].cpu().numpy(), rng)
                if self.balanced
                else rng.permutation(len(places))
            )
            if features is None:
                draws = self.augmentation.draw(len(places), rng)
                if self.augmentation.flip == "alternating":
                    first = np.random.default_rng([self.seed, FIRST_FLIPS]).random(len(places), dtype=np.float32)
                    draws[:, FLIP] = (torch.from_numpy(first)[places] + drawn / 2) % 1
                draws = draws.to(self.images.device)
        order = self.indices[places].to(self.images.device)
        if features is not None:
            places = places.to(features.rows.device)
        self.delivered, self.skip = self.skip if self.skip_in == self.epoch else 0, 0
        shards = [self.shard(number) for number in range(self.delivered, len(self))]
        if features is None:
            inputs = stream(self.images, [order[shard] for shard in shards])
        else:  # with two views, half of the images in each, swapped in the next epoch
            views = ((places[shard], (places[shard] + self.epoch) % features.views) for shard in shards)
            inputs = (Features(features.read(*each)) for each in views)
        teacher = self.teacher() if draws is not None else None
        if teacher is not None:
            teacher, places = teacher.to(self.labels.device), places.to(self.labels.device)
        for shard, images in zip(shards, inputs, strict=True):
            self.delivered += 1
            labels = self.labels[order[shard]]
            if teacher is not None and draws is not None:
                mirrored = (draws[shard][:, FLIP] < 0.5) & bool(self.augmentation and self.augmentation.flip)
                labels = teacher[places[shard], mirrored.long()]
            yield (images, labels) if draws is None else (images, labels, draws[shard])


def balanced_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many places in `labels` as there are, shuffled, with an equal share of each class, to within one.

    No image is repeated before all others of its class have been taken; those of a large class may not all be.
    """
    counts = np.unique(labels, return_counts=True)[1]
    shares = np.full(len(counts), len(labels) // len(counts))
    shares[rng.permutation(len(counts))[: len(labels) % len(counts)]] += 1
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    rounds = [np.tile(own, (-(-share // len(own)), 1)) for own, share in zip(members, shares, strict=True)]
    taken = [rng.permuted(each, axis=1).ravel()[:share] for each, share in zip(rounds, shares, strict=True)]
    return rng.permutation(np.concatenate(taken))
