"""The data module: who is in which split, what makes a batch, and when a batch is the same again."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.data.augmentation import Augmentation
from cifar10.data.batch_files import TEST_FILE, TRAIN_FILES
from cifar10.data.batches import Batches
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.preprocessing import Preprocessing
from cifar10.data.sources.shapes import SHAPE_NAMES, write_cifar10_files
from cifar10.data.split import split, stratified_order
from cifar10.errors import UserError
from cifar10.models.scratch import ScratchClassifier

FOLDER = "shapes/cifar-10-batches-py"
PER_FILE = 50  # 250 training images, 25 a class, and 50 test images
ALL_ON = {"crop_padding": 4, "flip": True, "cutout": 8, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}
few = settings(max_examples=25, derandomize=True)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A root with a small drawn data set; read-only by agreement."""
    root = tmp_path_factory.mktemp("data")
    write_cifar10_files(root / FOLDER, PER_FILE)
    return root


@pytest.fixture
def make(root):
    """A data module on `root`, ready to fit."""

    def make(**options):
        datamodule = CIFAR10DataModule(**{"root": str(root), "source": "shapes", "val_size": 50} | options)
        datamodule.setup("fit")
        return datamodule

    return make


def members(datamodule, name):
    return datamodule.indices[name].tolist()


def as_rank(datamodule, rank=0, world_size=1, epoch=0, model=None):
    """Let the data module believe that this is one of `world_size` processes that train a model, in that epoch."""
    datamodule.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_rank=rank,
        world_size=world_size,
        current_epoch=epoch,
        overfit_batches=0.0,
        lightning_module=model,
        precision_plugin=SimpleNamespace(convert_input=lambda batch: batch),
    )
    return datamodule


def numbered(count, batch_size, seed=0, epoch=0, rank=0, world_size=1):
    """Shuffled batches of images whose label is their number."""
    images, numbers = torch.zeros(count, 3, 2, 2, dtype=torch.uint8), torch.arange(count)
    batches = Batches(images, numbers, torch.arange(count), batch_size, rank=rank, world_size=world_size)
    batches.shuffle(seed, Augmentation(**ALL_ON), lambda: epoch)
    return batches


def one_line(caught):
    return "\n" not in str(caught.value)


# the split


@pytest.mark.parametrize("val_size", [1, 7, 50, 101, 249, 0.2, 0.5])
def test_both_parts_are_stratified_to_within_one_image_a_class(make, val_size):
    datamodule = make(val_size=val_size)
    labels = datamodule.loaded["train"][1].numpy()
    for name in ("train", "val"):
        chosen = members(datamodule, name)
        counts = np.bincount(labels[chosen], minlength=10)
        assert (abs(counts - len(chosen) / 10) <= 1).all()


@pytest.mark.parametrize("val_size", [0, 0.0, 1, 50, 0.37, 249])
def test_the_parts_are_disjoint_and_cover_every_image(make, val_size):
    datamodule = make(val_size=val_size)
    train, val = members(datamodule, "train"), members(datamodule, "val")
    assert sorted(train + val) == list(range(5 * PER_FILE))


def test_the_split_follows_split_seed_and_never_seed(make):
    one, other = make(seed=0), make(seed=1)
    assert members(one, "train") == members(other, "train") and members(one, "val") == members(other, "val")
    moved = make(split_seed=1)
    assert set(members(moved, "val")) != set(members(one, "val"))


def test_a_smaller_training_set_is_part_of_every_larger_one(make):
    sizes = [10, 33, 60, 0.5, 200, None]
    subsets = [set(members(make(train_size=size), "train")) for size in sizes]
    assert [len(subset) for subset in subsets] == [10, 33, 60, 100, 200, 200]
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(subsets))


def test_validation_does_not_move_with_the_training_size_and_a_smaller_one_is_part_of_a_larger(make):
    assert members(make(train_size=10), "val") == members(make(), "val")
    assert set(members(make(val_size=20), "val")) < set(members(make(val_size=50), "val"))


def test_fractions_and_numbers_agree(make):
    by_fraction, by_number = make(val_size=0.2, train_size=0.25), make(val_size=50, train_size=50)
    for name in ("train", "val"):
        assert members(by_fraction, name) == members(by_number, name)


@pytest.mark.parametrize(
    ("key", "size"),
    [
        *(("val_size", size) for size in (-1, 250, 251, -0.1, 1.0, 1.5, 0.001, float("nan"), float("inf"))),
        *(("train_size", size) for size in (0, -1, 201, 0.0, -0.1, 1.1, 0.001)),
    ],
)
def test_a_size_that_is_not_there_is_refused_in_one_line(make, key, size):
    with pytest.raises(UserError, match=f"^data.{key}={size}: .*250|^data.{key}={size}: .*200") as caught:
        make(**{key: size})
    assert one_line(caught)


def test_without_validation_there_is_no_batch_of_it_and_training_keeps_its_order(make):
    datamodule = make(val_size=0)
    assert datamodule.val_dataloader() == [] and datamodule.class_counts("val").tolist() == [0] * 10
    assert members(datamodule, "train")[50:] == members(make(val_size=50), "train")


def test_a_split_can_be_taken_to_the_last_image(make):
    datamodule = make(val_size=1, train_size=1.0)
    assert len(members(datamodule, "train")) == 249
    assert len(members(make(val_size=249, train_size=1), "train")) == 1


@few
@given(st.integers(2, 12), st.integers(1, 20), st.integers(0, 99))
def test_every_prefix_of_the_order_is_stratified_where_classes_are_balanced(classes, per_class, seed):
    check_every_prefix(np.random.RandomState(seed).permutation(np.arange(classes * per_class) % classes), seed)


@few
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 99))
def test_every_prefix_of_the_order_is_stratified_whatever_the_classes(labels, seed):
    check_every_prefix(np.array(labels), seed)


def test_every_prefix_of_the_order_is_stratified_where_one_class_outnumbers_the_others():
    check_every_prefix(np.array([0] * 60 + list(range(1, 10))), seed=0)


def check_every_prefix(labels, seed):
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    in_prefix = np.cumsum(labels[order][:, None] == np.unique(labels), axis=0)
    share = in_prefix[-1] / len(labels)
    proportional = np.arange(1, len(labels) + 1)[:, None] * share
    balanced = len(set(in_prefix[-1])) == 1
    allowed = 1.0 if balanced else 0.5 + len(share) / 2 * share
    assert (abs(in_prefix - proportional) <= allowed + 1e-9).all()


def test_the_order_is_random_within_a_class_and_fixed_by_the_seed():
    labels = np.arange(200) % 2
    one, same, other = (stratified_order(labels, seed) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
    of_one_class = one[labels[one] == 0]
    assert of_one_class.tolist() != sorted(of_one_class)


def test_a_split_stays_the_same_from_one_version_of_this_code_to_the_next():
    train, val = split(np.arange(20) % 4, 4, 8, seed=0)
    assert (train.tolist(), val.tolist()) == ([16, 13, 6, 11], [8, 1, 18, 19, 4, 17, 10, 7])


# batches


@few
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 9), st.integers(0, 9))
def test_every_image_is_seen_exactly_once_an_epoch_in_batches_of_even_size(count, batch_size, seed, epoch):
    batches = numbered(count, batch_size, seed, epoch)
    seen = [labels.tolist() for _, labels, _ in batches]
    assert sorted(itertools.chain.from_iterable(seen)) == list(range(count))
    sizes = {len(batch) for batch in seen}
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size
    assert len(batches) == len(seen) == -(-count // batch_size)


def test_the_loaders_hold_every_image_of_their_split_once(make):
    datamodule = make(batch_size=64)
    for name, loader in (("train", datamodule.train_dataloader()), ("val", datamodule.val_dataloader())):
        images, indices = datamodule.loaded["train"][0], datamodule.indices[name]
        seen = sorted(image.numpy().tobytes() for batch in loader for image in batch[0])
        assert seen == sorted(image.numpy().tobytes() for image in images[indices])


def test_a_set_that_fits_the_device_is_moved_there_once_for_training_and_validation(make, monkeypatch):
    datamodule = make()
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    datamodule.trainer = SimpleNamespace(
        strategy=strategy, global_rank=0, world_size=1, current_epoch=0, overfit_batches=0
    )
    monkeypatch.setattr("cifar10.data.datamodule.fits_on", lambda device, nbytes: True)
    train, val = datamodule.train_dataloader(), datamodule.val_dataloader()
    assert train.images.device.type == "meta" and train.images is val.images and train.labels is val.labels


def test_labels_stay_with_their_images(make):
    datamodule = make()
    images, labels = datamodule.loaded["train"]
    label_of = {image.numpy().tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        for batch_images, batch_labels, *_ in loader:
            assert [label_of[image.numpy().tobytes()] for image in batch_images] == batch_labels.tolist()


def test_order_and_draws_are_a_function_of_seed_and_epoch():
    def epoch_of(seed, epoch, noise):
        torch.manual_seed(noise)
        np.random.seed(noise)
        _, labels, draws = zip(*numbered(100, 32, seed, epoch), strict=True)
        return torch.cat(labels), torch.cat(draws)

    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (0, 2)]
    epochs = {key: epoch_of(*key, noise=1) for key in keys}
    for key, (order, draws) in epochs.items():
        again_order, again_draws = epoch_of(*key, noise=2)
        assert torch.equal(order, again_order) and torch.equal(draws, again_draws)
    assert len({tuple(order.tolist()) for order, _ in epochs.values()}) == len(keys)
    assert len({tuple(draws[:, 0].tolist()) for _, draws in epochs.values()}) == len(keys)


def test_iterating_twice_in_one_epoch_gives_the_same_and_an_epoch_can_begin_anywhere():
    epoch = 0
    batches = numbered(20, 8)
    batches.shuffle(0, Augmentation(), lambda: epoch)
    first, second = ([labels.tolist() for _, labels, _ in batches] for _ in range(2))
    epoch = 7
    later = [labels.tolist() for _, labels, _ in batches]
    fresh = [labels.tolist() for _, labels, _ in numbered(20, 8, epoch=7)]
    assert first == second != later == fresh


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("batch_size", [7, 12])
def test_the_shards_of_several_processes_are_together_the_batch_of_one(world_size, batch_size):
    whole = numbered(50, batch_size, seed=1, epoch=2)
    ranks = [numbered(50, batch_size, 1, 2, rank, world_size) for rank in range(world_size)]
    for (_, labels, draws), *shards in zip(whole, *ranks, strict=True):
        drawn = dict(zip(labels.tolist(), draws.tolist(), strict=True))
        sizes = [len(shard[1]) for shard in shards]
        assert sum(sizes) == len(labels) and max(sizes) - min(sizes) <= 2  # pairs that are mixed stay together
        together = {n: d for _, ns, ds in shards for n, d in zip(ns.tolist(), ds.tolist(), strict=True)}
        assert together == drawn


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_trainer_says_which_shard_is_loaded(make, world_size):
    for name in ("train_dataloader", "val_dataloader"):
        whole = list(getattr(as_rank(make()), name)())
        ranks = [list(getattr(as_rank(make(), rank, world_size), name)()) for rank in range(world_size)]
        for (images, *_), *shards in zip(whole, *ranks, strict=True):
            together = [image.numpy().tobytes() for shard in shards for image in shard[0]]
            assert sorted(together) == sorted(image.numpy().tobytes() for image in images)


# what the network is given


def finished(datamodule, epoch, name):
    """Each image of an epoch as the network sees it, by its raw bytes."""
    seen = {}
    for batch in getattr(as_rank(datamodule, epoch=epoch), name)():
        images, _ = datamodule.on_after_batch_transfer(batch, 0)
        seen |= {raw.numpy().tobytes(): image for raw, image in zip(batch[0], images, strict=True)}
    return seen


@pytest.mark.parametrize(
    "setting", [{"crop_padding": 4, "flip": True}, {"cutout": 8}, {"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}]
)
def test_a_validation_image_is_the_same_twice_and_a_training_image_is_not(make, setting):
    datamodule = make(**setting)
    first, second = (finished(datamodule, epoch, "val_dataloader") for epoch in (0, 1))
    assert len(first) == 50 and all(torch.equal(first[key], second[key]) for key in first)
    first, second = (finished(datamodule, epoch, "train_dataloader") for epoch in (0, 1))
    changed = [not torch.equal(first[key], second[key]) for key in first]
    assert len(changed) == 200 and np.mean(changed) > 0.9


def test_validation_sees_pixels_in_their_place_and_training_sees_the_same_size(make):
    datamodule = make(**ALL_ON)
    datamodule.preprocessing = Preprocessing(48, (0.5,) * 3, (0.25,) * 3)
    batch = next(iter(datamodule.val_dataloader()))
    images, labels = datamodule.on_after_batch_transfer(batch, 0)
    assert torch.equal(images, datamodule.preprocessing(batch[0])) and torch.equal(labels, batch[1])
    images, targets = datamodule.on_after_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    assert images.shape[1:] == (3, 48, 48) and targets.shape == (len(images), len(SHAPE_NAMES))


def test_image_size_sets_the_side_of_what_the_network_sees(make):
    datamodule = make(image_size=40)
    images, _ = datamodule.on_after_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    assert images.shape[1:] == (3, 40, 40)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("image_size", [None, 48])
def test_the_preprocessing_is_that_of_the_model_that_is_trained_or_tested(root, stage, image_size):
    wanted = Preprocessing(48, (0.5,) * 3, (0.25,) * 3, "bilinear")
    datamodule = CIFAR10DataModule(str(root), "shapes", image_size=image_size)
    model = ScratchClassifier(list(datamodule.class_names))
    model.preprocessing, model.trainer = wanted, as_rank(datamodule).trainer
    model.trainer.datamodule = datamodule
    model.setup(stage)
    images = torch.arange(2 * 3 * 32 * 32).view(2, 3, 32, 32).to(torch.uint8)
    out, _ = datamodule.on_after_batch_transfer((images, torch.zeros(2).long()), 0)
    assert torch.equal(out, wanted(images))


def test_an_image_size_that_the_model_is_not_made_for_is_refused_in_one_line(root):
    datamodule = CIFAR10DataModule(str(root), "shapes", image_size=40)
    with pytest.raises(UserError, match=r"^data\.image_size=40: .*\b48\b") as caught:
        datamodule.use_preprocessing(Preprocessing(48))
    assert one_line(caught)


def test_a_plain_loop_needs_no_trainer(make):
    datamodule, seen = make(batch_size=32, **ALL_ON), 0
    for batch in datamodule.train_dataloader():
        images, targets = datamodule.on_after_batch_transfer(batch, 0)
        assert images.dtype == torch.float32 and images.isfinite().all() and len(images) == len(targets)
        seen += len(images)
    assert seen == 200
    assert sum(len(datamodule.on_after_batch_transfer(batch, 0)[1]) for batch in datamodule.val_dataloader()) == 50


class Recorder(pl.LightningModule):
    """Trains nothing and keeps every batch it is given."""

    def __init__(self):
        super().__init__()
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch)

    def configure_optimizers(self):
        return None


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_gives_the_network_the_batches_of_a_plain_loop_epoch_after_epoch(root, make, tmp_path):
    options = {"batch_size": 64, "seed": 3, **ALL_ON}
    datamodule = CIFAR10DataModule(str(root), "shapes", val_size=50, **options)
    recorder = Recorder()
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, default_root_dir=tmp_path, num_sanity_val_steps=0,
        **dict.fromkeys(quiet, False),
    )  # fmt: skip
    trainer.fit(recorder, datamodule=datamodule)
    plain = make(**options)
    for name in ("train", "val"):
        expected = [
            plain.on_after_batch_transfer(batch, 0)
            for epoch in (0, 1)
            for batch in getattr(as_rank(plain, epoch=epoch), f"{name}_dataloader")()
        ]
        for (images, targets), (wanted, wanted_targets) in zip(recorder.seen[name], expected, strict=True):
            assert torch.equal(images, wanted) and torch.equal(targets, wanted_targets)


# which files are opened


@pytest.mark.parametrize(
    ("stage", "damaged", "others"),
    [("fit", [TEST_FILE], "test"), ("validate", [TEST_FILE], "test"),
     ("test", TRAIN_FILES, "fit"), ("predict", TRAIN_FILES, "fit")],
)  # fmt: skip
@pytest.mark.parametrize("how", ["absent", "garbage"])
def test_a_stage_opens_its_own_files_only(root, tmp_path, stage, damaged, others, how):
    shutil.copytree(root, tmp_path / "copy")
    for name in damaged:
        file = tmp_path / "copy" / FOLDER / name
        file.unlink() if how == "absent" else file.write_bytes(b"garbage")
    datamodule = CIFAR10DataModule(str(tmp_path / "copy"), "shapes")
    datamodule.setup(stage)
    loader = {"fit": "train", "validate": "val"}.get(stage, stage)
    assert len(list(getattr(datamodule, f"{loader}_dataloader")())) > 0
    with pytest.raises(UserError, match=damaged[0]):
        datamodule.setup(others)


def test_test_and_predict_keep_the_order_of_the_source(make):
    datamodule = make(eval_batch_size=7, seed=5, **ALL_ON)
    datamodule.setup("predict")
    images, labels = datamodule.source.load("test")
    for loader in (datamodule.predict_dataloader(), datamodule.test_dataloader()):
        batches = list(loader)
        assert torch.equal(torch.cat([batch[0] for batch in batches]), images)
        assert torch.equal(torch.cat([batch[1] for batch in batches]), labels)
        assert all(len(batch) == 2 for batch in batches)


def test_class_names_are_those_of_the_source(make):
    assert make().class_names == SHAPE_NAMES


# settings


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^source=mnist: .*cifar10.*folder.*shapes") as caught:
        CIFAR10DataModule(source="mnist")
    assert one_line(caught)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -1),
        ("eval_batch_size", 0),
        ("seed", -1),
        ("split_seed", -1),
        ("image_size", 0),
        ("image_size", -32),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(key, value):
    with pytest.raises(ValueError, match=f"^{key}={value}: ") as caught:
        CIFAR10DataModule(source="shapes", **{key: value})
    assert one_line(caught)


@pytest.mark.parametrize("padding", [32, 100])
def test_padding_as_wide_as_the_image_is_refused_before_training(make, padding):
    with pytest.raises(UserError, match=f"^data.crop_padding={padding}: ") as caught:
        make(crop_padding=padding)
    assert one_line(caught)
    make(crop_padding=31)


def test_alternating_flips_mirror_every_image_in_every_second_epoch_half_of_them_in_the_first(make):
    datamodule = make(flip="alternating")
    originals = datamodule.loaded["train"][0][datamodule.indices["train"]].float().div(255)
    mirrored = []
    for epoch in range(4):
        as_rank(datamodule, epoch=epoch)
        batches = datamodule.train_dataloader()
        places, seen = [], []
        for images, labels, draws in batches:
            finished = datamodule.augmentation.apply(images, labels, draws, Preprocessing(), 10)[0]
            raw = images.float().div(255)
            seen += [
                not torch.equal(one, other)
                for one, other in zip(finished.round(decimals=4), raw.round(decimals=4), strict=True)
            ]
            places += [next(i for i, each in enumerate(originals) if torch.equal(each, one)) for one in raw]
        mirrored.append([flag for _, flag in sorted(zip(places, seen, strict=True))])
    assert mirrored[0] == mirrored[2] and mirrored[1] == mirrored[3]
    assert mirrored[0] == [not flag for flag in mirrored[1]]
    assert 0.3 < sum(mirrored[0]) / len(mirrored[0]) < 0.7
