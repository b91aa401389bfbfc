"""Cached features: what is read is what was written, wherever it lies, and too much is said before it is spent."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cifar10.callbacks.feature_caching import compute_features
from cifar10.data import feature_cache as module
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.feature_cache import FeatureCache, Features, map_file
from cifar10.errors import UserError
from cifar10.progress import Progress

CPU = torch.device("cpu")


@pytest.fixture(params=["in memory", "in a file"])
def anywhere(request, monkeypatch):
    """Both places that a machine without a GPU has."""
    monkeypatch.setattr(module, "free_memory", lambda: 10**12 if request.param == "in memory" else 0)
    return request.param


@pytest.mark.parametrize("shape", [(5,), (5, 2, 3)])
def test_what_is_read_is_what_was_written(anywhere, tmp_path, shape):
    written = torch.randn(7, 2, *shape)
    cache = FeatureCache(7, 2, written[:1, 0], CPU, tmp_path)
    assert cache.place.startswith(anywhere)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for view in (1, 0):
        cache.write(order, view, written[order, view])
    views = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    read = cache.read(torch.arange(7), views)
    torch.testing.assert_close(read.float(), written[torch.arange(7), views], rtol=1e-3, atol=1e-3)
    if len(shape) == 3:
        assert read.is_contiguous(memory_format=torch.channels_last)


def test_its_size_is_that_of_half_precision(tmp_path):
    cache = FeatureCache(10, 3, torch.randn(2, 8, 4, 4), CPU, tmp_path)
    assert cache.nbytes == 10 * 3 * 8 * 4 * 4 * 2 == cache.rows.nbytes


def test_bfloat16_stays_as_it_is(tmp_path):
    features = torch.randn(2, 8).bfloat16() * 1e30
    cache = FeatureCache(2, 1, features, CPU, tmp_path)
    cache.write(torch.arange(2), 0, features)
    assert torch.equal(cache.read(torch.arange(2), 0), features)


def test_a_file_of_features_leaves_nothing_behind(tmp_path):
    tensor = map_file(tmp_path, 1000)
    tensor.fill_(7)
    assert tensor.sum() == 7000 and list(tmp_path.iterdir()) == []


def test_features_that_fit_nowhere_are_refused_with_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match=r"feature_caching.views: the features take 2\.0 GB.*1\.0 MB free") as caught:
        FeatureCache(1000, 1, torch.empty(1, 1000, 1000, device="meta"), CPU, tmp_path)
    assert "\n" not in str(caught.value)


def test_features_beyond_half_precision_are_refused(tmp_path):
    features = torch.full((2, 4), 1e6)
    with pytest.raises(UserError, match=r"reach 1e\+06, more than torch.float16 can hold"):
        FeatureCache(2, 1, features, CPU, tmp_path).write(torch.arange(2), 0, features)


# through the data module


def encode(datamodule, network, views, folder, of=None):
    """`compute_features` as a run on the CPU calls it."""
    trainer = SimpleNamespace(
        datamodule=datamodule, strategy=SimpleNamespace(root_device=CPU), default_root_dir=folder,
        global_rank=0, world_size=1, num_devices=1,
    )  # fmt: skip
    return compute_features(trainer, network, views, of)


def seen(datamodule, loader):
    """An epoch's inputs and labels."""
    batches = [datamodule.on_after_batch_transfer(batch) for batch in loader]
    return [inputs.values if isinstance(inputs, Features) else inputs for inputs, _ in batches], torch.cat(
        [labels for _, labels in batches]
    )


@pytest.fixture
def plain(shapes_root, tmp_path):
    datamodule = CIFAR10DataModule(str(shapes_root), "shapes", batch_size=32, eval_batch_size=24)
    datamodule.setup("fit")
    return datamodule


def test_without_augmentation_features_come_in_the_order_of_the_images(plain, tmp_path):
    for name in ("train_dataloader", "val_dataloader"):
        images, labels = seen(plain, getattr(plain, name)())
        plain.serve(encode(plain, lambda inputs: inputs, 1, tmp_path))
        features, same_labels = seen(plain, getattr(plain, name)())
        plain.serve({})
        assert torch.equal(labels, same_labels)
        for one, other in zip(images, features, strict=True):
            torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=1e-3)


def test_each_image_shows_each_of_its_views_in_turn(shapes_root, tmp_path):
    datamodule = CIFAR10DataModule(str(shapes_root), "shapes", batch_size=32, flip=True, crop_padding=4)
    datamodule.setup("fit")
    datamodule.serve(encode(datamodule, lambda inputs: inputs[:, :1], 3, tmp_path))
    loader, epochs = datamodule.train_dataloader(), []
    for epoch in range(3):
        loader.current_epoch = lambda epoch=epoch: epoch
        epochs.append({values.numpy().tobytes() for batch in seen(datamodule, loader)[0] for values in batch})
    assert [len(epoch) for epoch in epochs] == [160] * 3
    assert len(set.union(*epochs)) > 470, "one shift in 81 is none"


def test_the_first_view_is_the_image_the_second_its_mirror_image_and_others_are_shifted(datamodule):
    datamodule.setup("fit")
    views = [datamodule.fixed_view("train", torch.arange(20), number, CPU) for number in range(4)]
    assert torch.equal(views[1], views[0].flip(3))
    for shifted in views[2:]:
        assert not torch.equal(shifted, views[0]) and not torch.equal(shifted, views[1])
    again = datamodule.fixed_view("train", torch.arange(5, 20), 2, CPU)
    assert torch.equal(again, views[2][5:]), "a view does not depend on the batch it is made in"


def test_earlier_features_can_be_taken_further(datamodule, tmp_path):
    datamodule.setup("fit")
    first = encode(datamodule, lambda inputs: inputs * 2, 2, tmp_path)
    then = encode(datamodule, lambda features: features.float().mean((2, 3)), 2, tmp_path, of=first)
    places = torch.arange(10)
    expected = first["train"].read(places, 1).float().mean((2, 3))
    torch.testing.assert_close(then["train"].read(places, 1).float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "setting",
    [
        *({"cutout": 8}, {"mixup_alpha": 0.5}, {"cutmix_alpha": 1.0}, {"crop_scale": [0.35, 1.0]}, {"jitter": 0.3}),
        *({"hue": 0.1}, {"policy": "trivialaugment"}, {"erasing": 0.25}),
    ],
)
def test_augmentation_that_draws_anew_is_refused(shapes_root, setting):
    datamodule = CIFAR10DataModule(str(shapes_root), "shapes", **setting)
    with pytest.raises(UserError, match=rf"views=1: data\.{next(iter(setting))} needs new random numbers"):
        datamodule.augmentation.check_views(1)


def test_views_that_would_all_be_the_same_are_refused(plain):
    with pytest.raises(UserError, match=r"views=2: without data\.crop_padding and data\.flip"):
        plain.augmentation.check_views(2)


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_compute_a_shard_each_and_hold_all(tmp_path, world_size):
    values = torch.arange(50.0).view(25, 2)  # 25 images, two views
    shards, done = [], []

    class Strategy:
        def all_gather(self, features):  # every process has the same shape, and takes every world_size-th image
            first = int(features[0, 0]) // 2
            view = int(features[0, 0]) % 2
            others = [torch.arange(first, first + len(features) * world_size).clamp(max=24)[rank::world_size]
                      for rank in range(world_size)]  # fmt: skip
            return torch.stack([values[other, view, None] for other in others])

        def barrier(self):
            pass

    def inputs(places, view):
        shards.append(len(places))
        return values[places, view, None]

    trainer = SimpleNamespace(global_rank=0, world_size=world_size, num_devices=world_size, strategy=Strategy())
    cache = module.fill((25, 2), inputs, lambda inputs: inputs, 6, CPU, tmp_path, trainer, done.append)
    assert torch.equal(cache.rows.view(25, 2).float(), values)
    assert sum(done) == 50
    assert sum(shards) == 2 * -(-25 // world_size), "no process computes what another does"


def test_order_of_random_views_follows_the_seed_alone(datamodule):
    datamodule.setup("fit")
    np.random.seed(1)
    first = datamodule.fixed_view("train", torch.arange(8), 3, CPU)
    np.random.seed(2)
    assert torch.equal(first, datamodule.fixed_view("train", torch.arange(8), 3, CPU))


def test_progress_without_a_terminal_is_a_line_now_and_then(caplog):
    with caplog.at_level("INFO"), Progress(100, "computing", seconds=0.0) as progress:
        progress.update(25)
    assert "computing: 25 of 100, " in caplog.text and " s left" in caplog.text


def test_progress_that_does_not_know_its_end_says_how_much_is_done(caplog):
    with caplog.at_level("INFO"), Progress(None, "listing", seconds=0.0) as progress:
        progress.update(25)
    assert "listing: 25, " in caplog.text and "left" not in caplog.text
