"""What holds for transforms, splits, batches and files on any input."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cifar10.data.augmentation import Augmentation
from cifar10.data.augmentation.transforms import crop_and_flip
from cifar10.data.batch_files import TRAIN_FILES, dump_batch, load_batches
from cifar10.data.batches import Batches
from cifar10.data.preprocessing import Preprocessing
from cifar10.data.split import split
from cifar10.errors import UserError

some = settings(max_examples=50, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 12)
CLASSES = 5


def images_of(count, height, width, seed):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


@st.composite
def augmentations(draw, height, width, mixed=True):
    """Any augmentation that images of this size can have."""
    alphas = st.sampled_from([0.0, 0.05, 1.0, 4.0]) if mixed else st.just(0.0)
    padding = draw(st.integers(0, min(height, width) - 1))
    return Augmentation(padding, draw(st.booleans()), draw(st.integers(0, 2 * height)), draw(alphas), draw(alphas))


@st.composite
def batches_of_images(draw, mixed=True, square=False):
    count, height, width, seed = draw(st.integers(1, 9)), draw(sides), draw(sides), draw(seeds)
    width = height if square else width
    images = images_of(count, height, width, seed)
    augmentation = draw(augmentations(height, width, mixed))
    draws = augmentation.draw(count, np.random.default_rng(seed))
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, CLASSES, count))
    return images, labels, augmentation, draws


# transforms


@some
@given(batches_of_images(), sides)
def test_any_augmentation_gives_finite_inputs_and_targets_that_are_distributions_over_classes_present(batch, size):
    images, labels, augmentation, draws = batch
    before = images.clone()
    inputs, targets = augmentation.apply(images, labels, draws, Preprocessing(size), CLASSES)
    assert inputs.shape == (len(images), 3, size, size) and inputs.isfinite().all()
    assert torch.equal(images, before)
    if not (augmentation.mixup_alpha or augmentation.cutmix_alpha):
        assert torch.equal(targets, labels)
        return
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))
    partners = labels.flip(0)
    for target, own, other in zip(targets, labels, partners, strict=True):
        assert set(target.nonzero().flatten().tolist()) <= {int(own), int(other)}


@some
@given(batches_of_images(square=True))
def test_without_resizing_no_pixel_leaves_the_range_of_the_batch(batch):
    images, labels, augmentation, draws = batch
    pixels, _ = augmentation.apply(images, labels, draws, Preprocessing(images.shape[-1]), CLASSES)
    low = 0 if augmentation.cutout else images.min() / 255
    assert low - 1e-6 <= pixels.min() and pixels.max() <= images.max() / 255 + 1e-6


@some
@given(batches_of_images(mixed=False, square=True))
def test_every_pixel_after_crop_flip_and_cutout_comes_from_its_image_or_is_zero(batch):
    images, labels, augmentation, draws = batch
    pixels, _ = augmentation.apply(images, labels, draws, Preprocessing(images.shape[-1]), CLASSES)
    for image, seen in zip(images, (255 * pixels).round().to(torch.uint8), strict=True):
        colours = {tuple(colour) for colour in image.flatten(1).T.tolist()}
        assert {tuple(colour) for colour in seen.flatten(1).T.tolist()} <= colours | {(0, 0, 0)}


@some
@given(batches_of_images(), st.data())
def test_an_image_depends_on_its_own_draws_and_its_partner_alone(batch, data):
    images, labels, augmentation, draws = batch
    assume(len(images) > 2)
    index = data.draw(st.integers(0, len(images) - 1))
    others = [i for i in range(len(images)) if i not in (index, len(images) - 1 - index)]
    assume(others)
    preprocessing = Preprocessing(images.shape[-1])
    inputs, _ = augmentation.apply(images, labels, draws, preprocessing, CLASSES)
    images, draws = images.clone(), draws.clone()
    images[others], draws[others] = 255 - images[others], 1 - draws[others].clamp(1e-3, 1 - 1e-3)
    changed, _ = augmentation.apply(images, labels, draws, preprocessing, CLASSES)
    assert torch.equal(inputs[index], changed[index])


@some
@given(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9), seeds)
def test_mirroring_twice_restores_every_byte(count, height, width, seed):
    images, mirror = images_of(count, height, width, seed), torch.zeros(count, 3)
    once = crop_and_flip(images, mirror, 0, flip=True)
    assert torch.equal(once, images.flip(-1)) and once.dtype == torch.uint8
    assert torch.equal(crop_and_flip(once, mirror, 0, flip=True), images)


moments = st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.floats(0.05, 2)] * 3)


@some
@given(st.integers(1, 5), sides, *moments, seeds)
def test_denormalise_inverts_normalise_for_any_mean_and_deviation(count, side, mean, std, seed):
    images, preprocessing = images_of(count, side, side, seed), Preprocessing(side, mean, std)
    pixels = preprocessing.denormalise(preprocessing.normalise(images))
    assert torch.equal((255 * pixels).round().to(torch.uint8), images)


@some
@given(sides, sides, st.integers(1, 40), st.integers(0, 255), st.sampled_from(["bilinear", "bicubic", "nearest"]))
def test_a_plain_image_keeps_its_colour_at_every_size(height, width, size, colour, interpolation):
    images = torch.full((2, 3, height, width), colour, dtype=torch.uint8)
    pixels = Preprocessing(size, interpolation=interpolation)(images)
    torch.testing.assert_close(pixels, torch.full((2, 3, size, size), colour / 255), rtol=1e-5, atol=1e-5)


@some
@given(sides, sides, st.integers(1, 40), seeds, st.sampled_from(["bilinear", "nearest"]))
def test_interpolation_without_negative_weights_stays_between_the_darkest_and_brightest_pixel(h, w, size, seed, mode):
    images = images_of(2, h, w, seed)
    pixels = 255 * Preprocessing(size, interpolation=mode)(images)
    assert images.min() - 1e-3 <= pixels.min() and pixels.max() <= images.max() + 1e-3


@some
@given(sides, st.integers(1, 40), seeds, st.sampled_from(["bilinear", "bicubic"]))
def test_resizing_commutes_with_mirroring_and_transposing(side, size, seed, mode):
    images = images_of(2, side, side, seed)
    resize = Preprocessing(size, interpolation=mode)
    for moved in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
        torch.testing.assert_close(resize(moved(images)), moved(resize(images)), rtol=1e-4, atol=1e-4)


# splits

labels_of_any_kind = st.lists(st.integers(0, 6), min_size=2, max_size=80).map(np.array)
sizes = st.one_of(st.integers(-2, 90), st.floats(-0.5, 1.5), st.sampled_from([0.0, 1.0]))


@some
@given(labels_of_any_kind, st.none() | sizes, sizes, seeds)
def test_a_split_is_disjoint_and_of_the_size_asked_for_or_refused_in_one_line(labels, train_size, val_size, seed):
    total = len(labels)
    wanted = [round(s * n) if isinstance(s, float) else s for s, n in ((val_size, total), (train_size, None)) if n]
    try:
        train, val = split(labels, train_size, val_size, seed)
    except ValueError as error:
        assert str(error).startswith(("val_size=", "train_size=")) and "\n" not in str(error)
        left = total - wanted[0]
        train = round(train_size * left) if isinstance(train_size, float) else train_size
        allowed = val_size == 0 or 1 <= wanted[0] < total
        assert not allowed or not (train is None or 1 <= train <= left), "the images allow it"
        return
    assert len(val) == wanted[0] and len(set(val) | set(train)) == len(val) + len(train)
    assert set(val) | set(train) <= set(range(total))
    if train_size is None:
        assert len(val) + len(train) == total
    again = split(labels, train_size, val_size, seed)
    assert np.array_equal(train, again[0]) and np.array_equal(val, again[1])


@some
@given(labels_of_any_kind, st.data(), seeds)
def test_smaller_parts_are_subsets_of_larger_ones_and_training_images_keep_their_order(labels, data, seed):
    smaller, larger = sorted(data.draw(st.lists(st.integers(1, len(labels) - 1), min_size=2, max_size=2)))
    (train_small, val_small), (train_large, val_large) = (split(labels, None, n, seed) for n in (smaller, larger))
    assert np.array_equal(val_large[:smaller], val_small) and set(train_large) <= set(train_small)
    few = data.draw(st.integers(1, len(train_small)))
    assert np.array_equal(split(labels, few, smaller, seed)[0], train_small[:few])


@some
@given(st.lists(st.integers(1, 60), min_size=2, max_size=8), st.floats(0.05, 0.95), seeds)
def test_both_parts_have_each_class_in_proportion_however_unequal_the_classes(counts, val_size, seed):
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    assume(1 <= round(val_size * len(labels)) < len(labels))
    share = np.array(counts) / sum(counts)
    for part in split(labels, None, val_size, seed):
        held = np.bincount(labels[part], minlength=len(counts))
        assert (abs(held - len(part) * share) <= 0.5 + len(counts) / 2 * share + 1e-9).all()


# batches

alphas = st.sampled_from([0.0, 1.0])


def numbered(count, batch_size, seed, epoch, augmentation, rank=0, world_size=1):
    images, numbers = torch.zeros(count, 3, 2, 2, dtype=torch.uint8), torch.arange(count)
    batches = Batches(images, numbers, torch.arange(count), batch_size, rank, world_size)
    batches.shuffle(seed, augmentation, lambda: epoch)
    return batches


@some
@given(
    st.integers(1, 90), st.integers(1, 40), st.integers(1, 5), alphas, alphas, st.integers(0, 99), st.integers(0, 99)
)
def test_shares_are_together_the_batch_of_one_and_their_weighted_mean_is_its_mean(n, size, world, mixup, cutmix, s, e):
    augmentation = Augmentation(4, True, 0, mixup, cutmix)
    alone = numbered(n, size, s, e, augmentation)
    ranks = [numbered(n, size, s, e, augmentation, rank, world) for rank in range(world)]
    value = torch.from_numpy(np.random.default_rng(s).random(n))  # each image's loss
    assert alone.smallest == min(len(labels) for _, labels, _ in alone)
    for number, ((_, labels, draws), *shares) in enumerate(zip(alone, *ranks, strict=True)):
        assert ranks[0].weight(number) == 1 or world > 1
        sizes = [len(share[1]) for share in shares]
        assert max(sizes) - min(sizes) <= 2 and (min(sizes) > 0 or alone.smallest < world)
        drawn = {int(label): draw.tolist() for label, draw in zip(labels, draws, strict=True)}
        seen = {int(label): d.tolist() for share in shares for label, d in zip(share[1], share[2], strict=True)}
        assert seen == drawn and sum(sizes) == len(labels)
        weights = [batches.weight(number) for batches in ranks]
        means = [value[share[1]].mean().nan_to_num() for share in shares]
        mean = sum(weight * mean for weight, mean in zip(weights, means, strict=True)) / world
        torch.testing.assert_close(mean, value[labels].mean())


@some
@given(st.integers(1, 90), st.integers(1, 40), st.integers(2, 5), seeds)
def test_an_image_is_mixed_with_the_partner_it_has_on_one_process(n, size, world, seed):
    augmentation = Augmentation(mixup_alpha=1.0)
    alone = numbered(n, size, seed, 0, augmentation)
    ranks = [numbered(n, size, seed, 0, augmentation, rank, world) for rank in range(world)]
    for (_, labels, _), *shares in zip(alone, *ranks, strict=True):
        if len(labels) < 2 * world:
            continue  # too few to stay in pairs
        partner = dict(zip(labels.tolist(), labels.flip(0).tolist(), strict=True))
        for _, own, _ in shares:
            assert own.flip(0).tolist() == [partner[label] for label in own.tolist()]


# files


@some
@given(st.integers(1, 4), seeds)
def test_batch_files_give_back_what_was_written(tmp_path_factory, count, seed):
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(seed)
    data = rng.integers(0, 256, (len(TRAIN_FILES), count, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, (len(TRAIN_FILES), count))
    for name, rows, own in zip(TRAIN_FILES, data, labels, strict=True):
        dump_batch({b"data": rows, b"labels": own.tolist()}, folder / name)
    images, read = load_batches(folder, TRAIN_FILES, 10)
    assert np.array_equal(images.flatten(1), data.reshape(-1, 3072)) and np.array_equal(read, labels.ravel())


GOOD = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2)
damaged = st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8)).map(
    lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + len(change[1]) :]
)


@settings(max_examples=300, derandomize=True)
@given(st.one_of(st.binary(max_size=200), damaged, st.integers(0, len(GOOD)).map(lambda end: GOOD[:end])))
def test_a_file_of_any_bytes_is_read_or_refused_in_one_line_that_names_it(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("files")
    (folder / "test_batch").write_bytes(content)
    try:
        images, labels = load_batches(folder, ["test_batch"], 10)
    except UserError as error:
        assert "test_batch" in str(error) and "\n" not in str(error)
    else:
        assert images.dtype == torch.uint8 and images.shape == (len(labels), 3, 32, 32)
        assert ((labels >= 0) & (labels < 10)).all()


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_of_pickle_up_to_pythons_default_is_read(tmp_path, protocol):
    batch = {b"data": np.ones((2, 3072), np.uint8), b"labels": [3, 4]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    images, labels = load_batches(tmp_path, ["test_batch"], 10)
    assert images.eq(1).all() and labels.tolist() == [3, 4]
