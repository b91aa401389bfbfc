"""Batches of images that lie in memory, each one index operation; several processes share each batch."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from cifar10.data.feature_cache import FeatureCache, Features
from cifar10.data.transforms import Augmentation


class Batches:
    """Batches of a split, (images, labels, draws), each one index operation.

    Once shuffled, an epoch's order and every image's random numbers (`draws`, else None) are a pure function of (seed,
    epoch): no generator's state has to be saved. Batches differ by at most one image in size, so that none is too
    small for batch normalisation. On several processes each takes its share of every batch, see `share`.
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
        self.delivered = self.skip = 0

    def shuffle(self, seed: int, augmentation: Augmentation, current_epoch: Callable[[], int]) -> None:
        """From now on shuffle, and draw the numbers that `augmentation` wants, anew each epoch."""
        self.seed, self.augmentation, self.current_epoch = seed, augmentation, current_epoch

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def smallest(self) -> int:
        """Images in the smallest batch."""
        return min(stop - start for start, stop in itertools.pairwise(self.bounds))

    def share(self, number: int) -> slice | Tensor:
        """The places in the epoch's order of this process's images of a batch.

        Shares differ by at most one image, or by two where images are mixed: an image and its partner, which lies at
        the mirrored place in the batch, stay together, and mirrored in the share.
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
        """What to multiply the mean loss of this process's share of a batch with.

        The mean over processes is then the mean over the images of the batch, though shares differ in size.
        """
        start, stop = self.bounds[number : number + 2]
        share = self.share(number)
        images = len(range(*share.indices(stop))) if isinstance(share, slice) else len(share)
        return images * self.world_size / (stop - start)

    def state_dict(self) -> dict:
        """How many batches of the epoch have been delivered; Lightning keeps it in checkpoints."""
        return {"delivered": self.delivered}

    def load_state_dict(self, state_dict: dict) -> None:
        """Begin the next epoch where that one was left; a finished one is left at its beginning."""
        self.skip = state_dict["delivered"] % len(self)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        places, draws, epoch, features = torch.arange(len(self.indices)), None, 0, self.features()
        if self.augmentation is not None:
            epoch = self.current_epoch()
            rng = np.random.default_rng([self.seed, epoch])
            places = torch.from_numpy(rng.permutation(len(places)))
            if features is None:
                draws = self.augmentation.draw(len(places), rng).to(self.images.device)
        order = self.indices[places].to(self.images.device)
        if features is not None:
            places = places.to(features.rows.device)
        self.delivered, self.skip = self.skip, 0
        for number in range(self.delivered, len(self)):
            self.delivered += 1
            share = self.share(number)
            picked = order[share]
            if features is None:
                yield self.images[picked], self.labels[picked], None if draws is None else draws[share]
            else:  # half of the images in each of two views, and in the next epoch in the other
                view = (places[share] + epoch) % features.views
                yield Features(features.read(places[share], view)), self.labels[picked], None
