"""Whole-batch transforms against references that take one image and one pixel at a time."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.data.augmentation import Augmentation
from cifar10.data.augmentation.transforms import crop_and_flip, cutout, mix
from cifar10.data.preprocessing import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
few = settings(max_examples=25, derandomize=True)


def random_images(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def uniform(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


# crop and flip


@few
@given(st.data(), st.integers(3, 9), st.integers(3, 9), st.sampled_from([1, 3]), st.integers(0, 999))
def test_crop_and_flip_is_pad_slice_and_mirror_of_each_image(data, height, width, channels, seed):
    padding = data.draw(st.integers(0, min(height, width) - 1))
    offset = st.integers(0, 2 * padding)  # into the padded image
    chosen = data.draw(st.lists(st.tuples(offset, offset, st.booleans()), min_size=1, max_size=4))
    images = random_images(len(chosen), channels, height, width, seed=seed)
    choices = 2 * padding + 1
    draws = torch.tensor([[(r + 0.5) / choices, (c + 0.5) / choices, 0.25 if m else 0.75] for r, c, m in chosen])
    cropped, mirrored = (crop_and_flip(images, draws, padding, flip) for flip in (False, True))
    assert cropped.dtype == mirrored.dtype == torch.uint8
    for index, (row, column, mirror) in enumerate(chosen):
        padded = F.pad(images[index : index + 1].float(), [padding] * 4, mode="reflect")[0]
        window = padded[:, row : row + height, column : column + width]
        assert torch.equal(cropped[index].float(), window)
        assert torch.equal(mirrored[index].float(), window.flip(-1) if mirror else window)


def test_offsets_cover_minus_p_to_p_evenly_and_half_of_the_images_are_mirrored():
    padding = 4
    where = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)  # a pixel says where it was
    out = crop_and_flip(where.expand(3000, -1, -1, -1), uniform(3000, 3), padding, flip=True)[:, 0].long()
    mirrored = out[:, 8, 8] > out[:, 8, 9]
    assert 0.45 < mirrored.float().mean() < 0.55
    row_offset = out[:, 8, 8] // 16 - 8
    column_offset = torch.where(mirrored, out[:, 8, 7], out[:, 8, 8]) % 16 - 8  # mirroring takes column 7 to 8
    for offset in (row_offset, column_offset):
        values, counts = offset.unique(return_counts=True)
        assert values.tolist() == list(range(-padding, padding + 1))
        assert counts.min() > 3000 / 9 * 0.7
    assert abs(np.corrcoef(row_offset, column_offset)[0, 1]) < 0.1


@pytest.mark.parametrize("padding", range(8))
def test_the_smallest_and_the_largest_draw_reach_both_ends_and_never_further(padding):
    where = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    last = float(np.nextafter(np.float32(1), np.float32(0)))
    for draw, offset in ((0.0, -padding), (last, padding)):
        out = crop_and_flip(where, torch.tensor([[draw, draw, last]]), padding, flip=True)
        assert out[0, 0, 8, 8] == (8 + offset) * 17


def test_each_image_of_a_batch_is_cropped_and_mirrored_on_its_own():
    same = random_images(1, 3, 16, 16).expand(64, -1, -1, -1)
    out = crop_and_flip(same, uniform(64, 3), 4, flip=True)
    assert len({image.numpy().tobytes() for image in out}) > 40


def test_without_padding_and_flip_the_images_come_back():
    images = random_images(4, 3, 8, 8)
    assert torch.equal(crop_and_flip(images, uniform(4, 3), 0, flip=False), images)


@pytest.mark.parametrize("size", [32, 48])
def test_an_image_does_not_depend_on_what_else_is_in_the_batch(size):
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=8)
    preprocessing = Preprocessing(size, **IMAGENET)
    images, labels = random_images(8, 3, 32, 32), torch.arange(8)
    draws = augmentation.draw(8, np.random.default_rng(0))
    together, _ = augmentation.apply(images, labels, draws, preprocessing, 10)
    alone = [
        augmentation.apply(images[i : i + 1], labels[i : i + 1], draws[i : i + 1], preprocessing, 10)[0]
        for i in range(8)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    crops = [crop_and_flip(images[i : i + 1], draws[i : i + 1, :3], 4, flip=True) for i in range(8)]
    assert torch.equal(crop_and_flip(images, draws[:, :3], 4, flip=True), torch.cat(crops))


# cutout


@few
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), min_size=1, max_size=4),
)
def test_cutout_zeroes_exactly_the_clipped_square(height, width, size, centres):
    images = 1 + uniform(len(centres), 3, height, width)
    draws = torch.tensor(centres, dtype=torch.float32)
    expected = images.clone()
    for index, (down, across) in enumerate(draws.numpy()):
        top, left = int(down * height) - size // 2, int(across * width) - size // 2
        for row in range(top, top + size):
            for column in range(left, left + size):
                if 0 <= row < height and 0 <= column < width:
                    expected[index, :, row, column] = 0
    before = images.clone()
    assert torch.equal(cutout(images, draws, size), expected)
    assert torch.equal(images, before)


def test_the_cutout_square_may_extend_beyond_the_border():
    zeroed = cutout(torch.ones(2, 3, 32, 32), torch.tensor([[0.0, 0.0], [0.5, 0.5]]), 8) == 0
    assert zeroed[0, 0, :4, :4].all() and zeroed[0, 0].sum() == 16
    assert zeroed[1, 0, 12:20, 12:20].all() and zeroed[1, 0].sum() == 64


def test_cutout_leaves_the_mean_colour():
    augmentation = Augmentation(cutout=64)  # covers the whole image, wherever its centre
    preprocessing = Preprocessing(32, **IMAGENET)
    draws = augmentation.draw(4, np.random.default_rng(0))
    out, _ = augmentation.apply(random_images(4, 3, 32, 32), torch.zeros(4).long(), draws, preprocessing, 10)
    seen = preprocessing.denormalise(out).mean((0, 2, 3))
    torch.testing.assert_close(seen, torch.tensor(IMAGENET["mean"]))


# mixup and cutmix

fractions = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5)


@few
@given(fractions)
def test_mixup_is_the_weighted_sum_with_the_mirrored_image_of_the_batch(kept):
    count = len(kept)
    images, lam = uniform(count, 3, 4, 5), torch.tensor(kept)
    mixed, own = mix(images, torch.zeros(count, dtype=bool), lam, torch.ones(count), uniform(count, 2))
    expected = [kept[i] * images[i] + (1 - kept[i]) * images[count - 1 - i] for i in range(count)]
    torch.testing.assert_close(mixed, torch.stack(expected))
    assert torch.equal(own, lam)


@few
@given(fractions, st.integers(1, 12), st.integers(1, 12), st.integers(0, 999))
def test_cutmix_pastes_one_box_of_the_partner_whose_area_is_what_is_not_kept(kept, height, width, seed):
    count = len(kept)
    images = torch.arange(count * 3 * height * width).view(count, 3, height, width).float()
    draws = uniform(count, 2, seed=seed)
    mixed, own = mix(images, torch.ones(count, dtype=bool), torch.ones(count), torch.tensor(kept), draws)
    for index in range(count):
        partner = images[count - 1 - index]
        if count - 1 - index == index:  # the middle image is its own partner
            assert torch.equal(mixed[index], images[index])
            continue
        pasted = (mixed[index] == partner).all(0)
        assert torch.equal(mixed[index], torch.where(pasted, partner, images[index]))
        box = pasted.any(1)[:, None] & pasted.any(0)[None, :]
        for present in (pasted.any(1), pasted.any(0)):  # without a gap
            assert present.int().diff().abs().sum() + present[0].int() + present[-1].int() in (0, 2)
        assert torch.equal(pasted, box)
        assert own[index].item() == pytest.approx(1 - pasted.float().mean().item(), abs=1e-6)


def test_a_cutmix_box_inside_the_image_has_the_drawn_area_and_centre():
    images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    centre = torch.full((2, 2), 0.5)
    mixed, own = mix(images, torch.ones(2, dtype=bool), torch.ones(2), torch.full((2,), 0.75), centre)
    assert own.tolist() == [0.75, 0.75]
    assert mixed[0, :, 8:24, 8:24].eq(1).all() and mixed[0].sum() == 3 * 16 * 16


def black_and_white(augmentation, count=256):
    """Black images of class 0 and white ones of class 1, augmented: an image's mean is its share of class 1."""
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 2, count))
    images = (labels * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).contiguous()
    draws = augmentation.draw(count, np.random.default_rng(2))
    return labels, *augmentation.apply(images, labels, draws, Preprocessing(32), 3)


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.2, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_are_probabilities_that_say_what_is_in_the_image(mixup, cutmix):
    labels, images, targets = black_and_white(Augmentation(mixup_alpha=mixup, cutmix_alpha=cutmix))
    assert targets.shape == (256, 3) and (targets >= 0).all() and (targets[:, 2] == 0).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(256))
    torch.testing.assert_close(targets[:, 1], images.mean((1, 2, 3)), rtol=0, atol=1e-5)
    like_partner = labels == labels.flip(0)
    torch.testing.assert_close(targets[like_partner], F.one_hot(labels[like_partner], 3).float())
    assert (targets[~like_partner].amax(1) < 0.999).float().mean() > 0.5


def test_with_both_on_each_image_takes_one_of_them_at_random():
    labels, images, _ = black_and_white(Augmentation(mixup_alpha=1.0, cutmix_alpha=1.0))
    different = labels != labels.flip(0)
    flat = images.amin((1, 2, 3)) == images.amax((1, 2, 3))
    by_mixup = flat & (images[:, 0, 0, 0] > 0) & (images[:, 0, 0, 0] < 1)
    by_cutmix = (images == 0).flatten(1).any(1) & (images == 1).flatten(1).any(1)
    assert 0.3 < by_mixup[different].float().mean() < 0.7
    assert 0.3 < by_cutmix[different].float().mean() < 0.7


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_kept_fractions_follow_beta_of_alpha(alpha):
    draws = Augmentation(mixup_alpha=alpha, cutmix_alpha=alpha).draw(4000, np.random.default_rng(0))
    for kept in (draws[:, 8], draws[:, 9]):
        assert kept.mean() == pytest.approx(0.5, abs=0.03)
        assert kept.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


# preprocessing


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [20, 33, 96])
def test_normalising_first_is_the_same_as_resizing_first(mode, size):
    images = random_images(3, 3, 32, 32)
    mean, std = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    options = {"size": (size, size), "mode": mode, "align_corners": False, "antialias": size < 32}
    resized_first = (F.interpolate(images.double() / 255, **options) - mean) / std
    normalised_first = F.interpolate((images.double() / 255 - mean) / std, **options)
    out = Preprocessing(size, **IMAGENET, interpolation=mode)(images)
    torch.testing.assert_close(out, resized_first.float(), rtol=0, atol=2e-5)
    torch.testing.assert_close(out, normalised_first.float(), rtol=0, atol=2e-5)


def test_nearest_neighbours_are_repeated_pixels():
    images = random_images(2, 3, 8, 8)
    out = Preprocessing(24, interpolation="nearest")(images)
    torch.testing.assert_close(out, images.repeat_interleave(3, 2).repeat_interleave(3, 3).float() / 255)


def test_at_native_size_pixels_are_normalised_and_nothing_else():
    images = random_images(3, 3, 32, 32)
    before = images.clone()
    torch.testing.assert_close(Preprocessing()(images), images.float() / 255)
    out = Preprocessing(32, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(images)
    for channel, (mean, std) in enumerate([(0.5, 0.5), (0.25, 0.25), (0.0, 2.0)]):
        torch.testing.assert_close(out[:, channel], (images[:, channel].float() / 255 - mean) / std)
    assert out.dtype == torch.float32 and out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_denormalise_inverts_normalise():
    images = random_images(3, 3, 16, 16)
    preprocessing = Preprocessing(16, **IMAGENET)
    torch.testing.assert_close(preprocessing.denormalise(preprocessing(images)), images.float() / 255)


def test_denormalised_pixels_stay_in_the_range_of_pixels():
    stripes = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    stripes[..., ::4] = 255  # bicubic overshoots at edges
    preprocessing = Preprocessing(48, **IMAGENET)
    pixels = preprocessing.denormalise(preprocessing(stripes))
    assert pixels.min() == 0 and pixels.max() == 1


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_downsampling_antialiases_so_that_no_pixel_goes_unseen(mode):
    impulses = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    for shift in range(8):  # one white row each, in the middle
        impulses[shift, :, 12 + shift] = 255
    seen = Preprocessing(4, interpolation=mode)(impulses).sum((1, 2, 3)) / (3 * 4)
    assert ((seen > 0.75 / 8) & (seen < 1.25 / 8)).all()  # an eighth as many rows


# augmentation as a whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_padding", -1),
        ("cutout", -8),
        ("mixup_alpha", -0.2),
        ("mixup_alpha", float("nan")),
        ("cutmix_alpha", -1.0),
        ("cutmix_alpha", 2e6),
        ("cutmix_alpha", float("inf")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}: must be "):
        Augmentation(**{name: value})


def test_draws_are_a_function_of_their_generator_alone():
    augmentation = Augmentation(4, True, 8, 0.8, 1.0)
    torch.manual_seed(0)
    np.random.seed(0)
    first = augmentation.draw(20, np.random.default_rng([3, 5]))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[2]
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(augmentation.draw(20, np.random.default_rng([3, 5])), first)
    assert not torch.equal(augmentation.draw(20, np.random.default_rng([3, 6])), first)
    assert first.shape == (20, 10) and first.dtype == torch.float32
    assert (first >= 0).all() and (first[:, :8] < 1).all() and (first <= 1).all()
    torch.manual_seed(0)
    np.random.seed(0)
    assert torch.equal(torch.get_rng_state(), torch_state) and np.random.get_state()[2] == numpy_state


def test_every_image_and_every_column_has_its_own_draws():
    draws = Augmentation(4, True, 8, 0.8, 1.0).draw(50, np.random.default_rng(0))
    assert len(draws.unique(dim=0)) == 50 and len(draws.unique(dim=1).T) == 10


def test_all_off_is_plain_preprocessing_with_the_labels_as_targets():
    images, labels = random_images(5, 3, 32, 32), torch.tensor([3, 1, 4, 1, 5])
    preprocessing = Preprocessing(40, **IMAGENET)
    draws = Augmentation().draw(5, np.random.default_rng(0))
    out, targets = Augmentation().apply(images, labels, draws, preprocessing, 10)
    assert torch.equal(out, preprocessing(images)) and torch.equal(targets, labels)


@pytest.mark.parametrize(
    "setting",
    [{"crop_padding": 4}, {"flip": True}, {"cutout": 8}, {"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}],
    ids=lambda setting: next(iter(setting)),
)
def test_each_part_alone_changes_images_of_the_same_shape(setting):
    augmentation = Augmentation(**setting)
    images, labels = random_images(16, 3, 32, 32), torch.arange(16) % 10
    draws = augmentation.draw(16, np.random.default_rng(0))
    before = images.clone()
    out, _ = augmentation.apply(images, labels, draws, Preprocessing(), 10)
    changed = (out != Preprocessing()(images)).flatten(1).any(1)
    assert out.shape == images.shape and changed.float().mean() > 0.3
    assert torch.equal(images, before)
    again, _ = augmentation.apply(images, labels, draws, Preprocessing(), 10)
    assert torch.equal(out, again)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "sides, size", [((32, 32), 96), ((32, 32), 224), ((32, 32), 16), ((20, 30), 25), ((7, 40), 32)]
)
def test_two_matrix_products_resize_as_interpolate_does(interpolation, sides, size):
    images = torch.randn(11, 3, *sides)
    got = Preprocessing(size, interpolation=interpolation).resize(images)
    expected = F.interpolate(
        F.interpolate(images, (size, sides[1]), mode=interpolation, antialias=sides[0] > size),
        (size, size), mode=interpolation, antialias=sides[1] > size,
    )  # fmt: skip
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_upsampling_equals_interpolate_in_both_directions_at_once():
    images = torch.rand(9, 3, 32, 32)
    expected = F.interpolate(images, (224, 224), mode="bicubic")
    assert (Preprocessing(224).resize(images) - expected).abs().max() < 4e-6


def test_what_is_made_under_inference_mode_can_be_used_in_training():
    with torch.inference_mode():
        Preprocessing(40, (0.3,) * 3, (0.2,) * 3)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    images = Preprocessing(40, (0.3,) * 3, (0.2,) * 3)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    (images * torch.ones(1, requires_grad=True)).sum().backward()
