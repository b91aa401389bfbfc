"""With `sampler=balanced` every class takes an equal share of every epoch, in an order that nothing else changes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.data.augmentation import Augmentation
from cifar10.data.batches import Batches, balanced_order
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.feature_cache import FeatureCache

LABELS = np.repeat([0, 1, 3], [30, 8, 2])  # of class 2 there is nothing


def batches(labels=LABELS, epoch=0, rank=0, world_size=1, balanced=True, **augmentation):
    """Batches of images, all of whose pixels are the image's number."""
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    made = Batches(images, torch.from_numpy(labels), torch.arange(len(labels)), 7, rank, world_size)
    made.shuffle(3, Augmentation(**augmentation), lambda: epoch, balanced=balanced)
    return made


def numbers(batches):
    return [images[:, 0, 0, 0].tolist() for images, *_ in batches]


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), st.integers(0, 99))
def test_classes_take_equal_shares_and_none_repeats_an_image_before_all_of_its_own_were_seen(counts, seed):
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = balanced_order(labels, np.random.default_rng(seed))
    assert len(order) == len(labels)
    shares = np.bincount(labels[order], minlength=len(counts))[np.flatnonzero(counts)]
    assert shares.max() - shares.min() <= 1
    seen = np.bincount(order, minlength=len(labels))
    for label in np.unique(labels):
        assert np.ptp(seen[labels == label]) <= 1


def test_the_classes_are_mixed_and_repeats_are_spread_over_the_epoch():
    order = balanced_order(np.repeat([0, 1], [990, 10]), np.random.default_rng(0))
    halves = [(order[part] >= 990).mean() for part in (slice(500), slice(500, 1000))]
    assert all(0.4 < share < 0.6 for share in halves)


def test_the_order_is_a_function_of_seed_and_epoch_and_new_in_every_epoch():
    assert numbers(batches(epoch=1)) == numbers(batches(epoch=1)) != numbers(batches(epoch=2))


def test_without_it_every_image_comes_once_in_the_order_that_it_always_had():
    found = list(itertools.chain(*numbers(batches(epoch=5, balanced=False))))
    assert found == np.random.default_rng([3, 5]).permutation(len(LABELS)).tolist()


@pytest.mark.parametrize("mixing", [0.0, 0.2])
def test_shards_of_several_processes_are_together_the_batch_of_one(mixing):
    shards = zip(*(numbers(batches(rank=rank, world_size=2, mixup_alpha=mixing)) for rank in (0, 1)), strict=True)
    assert [sorted(one + other) for one, other in shards] == [sorted(one) for one in numbers(batches())]


def test_an_interrupted_epoch_goes_on_where_it_stopped():
    whole, stopped, resumed = (batches(epoch=4) for _ in range(3))
    first = numbers(itertools.islice(stopped, 2))
    resumed.load_state_dict(stopped.state_dict())
    assert first + numbers(resumed) == numbers(whole)


def test_cached_features_are_those_of_the_images_that_are_drawn(tmp_path):
    cache = FeatureCache(len(LABELS), 1, torch.zeros(1, 4), torch.device("cpu"), tmp_path)
    cache.write(torch.arange(len(LABELS)), 0, torch.arange(len(LABELS)).float()[:, None].repeat(1, 4))
    cached = batches(epoch=1)
    cached.features = lambda: cache
    found = [(features.values[:, 0].tolist(), labels.tolist()) for features, labels in cached]
    assert found == [(drawn, LABELS[drawn].tolist()) for drawn in numbers(batches(epoch=1))]


def test_the_data_module_balances_training_alone_and_counts_what_is_there(shapes_root):
    data = CIFAR10DataModule(root=str(shapes_root), source="shapes", val_size=40, sampler="balanced")
    data.setup("fit")
    labels = data.loaded["train"][1]
    own = labels[data.indices["train"]]
    data.indices["train"] = data.indices["train"][(own != 9) & ((own != 0) | ((own == 0).cumsum(0) <= 4))]
    counts = data.class_counts("train").tolist()
    assert counts == [4, *[16] * 8, 0]
    drawn = torch.bincount(torch.cat([labels for _, labels, _ in data.train_dataloader()]), minlength=10)[:9]
    assert int(drawn.sum()) == sum(counts) and drawn.max() - drawn.min() <= 1
    assert torch.equal(torch.cat([labels for _, labels in data.val_dataloader()]), labels[data.indices["val"]])


def test_another_sampler_is_refused():
    with pytest.raises(ValueError, match=r"^sampler=weighted: must be balanced"):
        CIFAR10DataModule(sampler="weighted")
