"""The augmentation of photographs as a whole, and the statistics of its random numbers."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.data.augmentation import Augmentation
from cifar10.data.augmentation.transforms import erase, random_boxes
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError
from tests.data.test_transforms import IMAGENET, random_images, uniform

SETTINGS = {
    "crop_scale": [0.35, 1.0],
    "jitter": 0.4,
    "hue": 0.1,
    "policy": "trivialaugment",
    "erasing": 0.5,
}
ALL = SETTINGS | {"flip": True}


def augmented(augmentation, images, size=24, some=slice(None)):
    draws = augmentation.draw(len(images), np.random.default_rng(3))
    labels = torch.zeros(len(images[some]), dtype=torch.long)
    return augmentation.apply(images[some], labels, draws[some], Preprocessing(size, **IMAGENET), 10)[0]


@settings(max_examples=20, derandomize=True)
@given(st.sets(st.sampled_from(sorted(ALL))), st.sampled_from([16, 32, 40]), st.integers(1, 20))
def test_an_image_does_not_depend_on_the_rest_of_the_batch(names, size, count):
    augmentation = Augmentation(**{name: ALL[name] for name in names})
    images = random_images(count, 3, 32, 32)
    before = images.clone()
    together = augmented(augmentation, images, size)
    assert together.shape == (count, 3, size, size)
    alone = [augmented(augmentation, images, size, slice(i, i + 1)) for i in range(count)]
    # Values that lie between two whole numbers may be rounded either way, and then be 1 / 255 / std apart.
    off = (together - torch.cat(alone)).abs()
    assert off.mean() < 1e-3 and off.max() < 1.0
    assert torch.equal(images, before)
    assert torch.equal(together, augmented(augmentation, images, size))


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_alone_changes_images(name):
    images = random_images(32, 3, 32, 32)
    out = augmented(Augmentation(**{name: SETTINGS[name]}), images)
    assert (out != Preprocessing(24, **IMAGENET)(images)).flatten(1).any(1).float().mean() > 0.3


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_adds_numbers_and_leaves_those_of_the_others_as_they_are(name):
    old = {"crop_padding": 4, "flip": True, "cutout": 8, "mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    plain, extended, full = (
        Augmentation(**options).draw(50, np.random.default_rng(0))
        for options in (old, old | {name: SETTINGS[name]}, old | SETTINGS)
    )
    assert torch.equal(extended[:, :10], plain) and torch.equal(extended, full)
    assert (full[:, 10:] >= 0).all() and (full[:, 10:] < 1).all() and len(full.unique(dim=1).T) == 29


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_training_makes_oblong_images_square_as_evaluation_does(resize):
    images, preprocessing = random_images(4, 3, 48, 32), Preprocessing(24)
    preprocessing.set_fit(32, resize, (255, 255, 255))
    draws = Augmentation().draw(4, np.random.default_rng(0))
    out, _ = Augmentation().apply(images, torch.zeros(4, dtype=torch.long), draws, preprocessing, 10)
    torch.testing.assert_close(out, preprocessing(images))


def test_cutout_blanks_the_same_part_of_images_that_a_crop_has_enlarged():
    images, preprocessing = torch.full((64, 3, 32, 32), 200, dtype=torch.uint8), Preprocessing(96)
    shares = []
    for crop in (None, [1.0, 1.0]):
        augmentation = Augmentation(cutout=8, crop_scale=crop)
        draws = augmentation.draw(64, np.random.default_rng(0))
        out, _ = augmentation.apply(images, torch.zeros(64, dtype=torch.long), draws, preprocessing, 10)
        shares.append((out[:, 0] < 0.4).float().mean().item())
    assert 0.04 < shares[0] < 0.07 and shares[1] == pytest.approx(shares[0], abs=0.01)


@pytest.mark.parametrize(("options", "most"), [({}, 1), ({"flip": True}, 2)])
def test_no_more_views_than_differ_are_taken(options, most):
    Augmentation(**options).check_views(most)
    with pytest.raises(UserError, match=f"further views are the same; set it to {most}$"):
        Augmentation(**options).check_views(most + 1)


@pytest.mark.parametrize("size", [16, 32])
def test_with_nothing_to_draw_from_the_crop_is_the_whole_image(size):
    images = random_images(4, 3, 32, 32)
    out = augmented(Augmentation(crop_scale=[1.0, 1.0]), images, size)
    torch.testing.assert_close(out, Preprocessing(size, **IMAGENET)(images), rtol=0, atol=1e-4)


def test_large_images_are_made_smaller_before_the_policy_and_small_ones_grow_after_it(monkeypatch):
    sides = []
    monkeypatch.setattr(
        "cifar10.data.augmentation.apply_policy", lambda images, draws, name: sides.append(images.shape[2:]) or images
    )
    for side in (16, 48):
        assert augmented(Augmentation(policy="randaugment"), random_images(2, 3, side, side), 32).shape[2:] == (32, 32)
    assert sides == [(16, 16), (32, 32)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("crop_scale", value) for value in ([0.0, 1.0], [0.5, 0.2], [0.5, 1.5], [0.5], [float("nan"), 1.0])),
        *(("jitter", -0.1), ("jitter", 1.5), ("hue", 0.6), ("hue", float("nan")), ("erasing", 2.0)),
        ("policy", "autoaugment"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}: must be "):
        Augmentation(**{name: value})


def test_all_but_the_policy_happens_where_the_images_are():
    augmentation = Augmentation(**ALL | {"policy": None}, mixup_alpha=0.2, cutmix_alpha=1.0)
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device="meta")
    labels, draws = torch.zeros(4, dtype=torch.long, device="meta"), torch.zeros(4, 29, device="meta")
    out, targets = augmentation.apply(images, labels, draws, Preprocessing(24), 10)
    assert out.device.type == targets.device.type == "meta"


# boxes and erasing


@settings(max_examples=50, derandomize=True)
@given(st.integers(10, 300), st.integers(10, 300), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 999))
def test_boxes_lie_inside_and_have_the_areas_and_ratios_asked_for(height, width, one, other, seed):
    areas, ratios = (min(one, other), max(one, other)), (3 / 4, 4 / 3)
    draws = torch.cat([uniform(50, 4, seed=seed), torch.zeros(1, 4), torch.ones(1, 4)])
    top, left, rows, columns = random_boxes(draws, (height, width), areas, ratios).unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (rows >= 1).all() and (columns >= 1).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()
    assert ((rows - 0.51) * (columns - 0.51) <= areas[1] * height * width).all()
    if 3 / 4 <= width / height <= 4 / 3:  # otherwise the largest boxes are cut off at the border
        assert ((rows + 0.51) * (columns + 0.51) >= areas[0] * height * width).all()
        assert ((columns + 0.51) / (rows - 0.51) >= 3 / 4).all() and ((columns - 0.51) / (rows + 0.51) <= 4 / 3).all()


def test_areas_places_and_ratios_are_even():
    side, count = 1000, 10_000
    top, _, rows, columns = random_boxes(uniform(count, 4), (side, side), (0.1, 0.7), (3 / 4, 4 / 3)).double().unbind(1)
    area = rows * columns / side**2
    ratio = (columns / rows).log() / math.log(4 / 3)  # a box of 0.7 of the area has room for all ratios up to 1.43
    for values, low, high in ((area, 0.1, 0.7), (ratio, -1, 1), (top / (side - rows), 0, 1)):
        counts = ((values - low) / (high - low) * 10).long().clamp(0, 9).bincount(minlength=10)
        assert ((counts - count / 10) ** 2 / (count / 10)).sum() < 35  # chi-square with 9 degrees of freedom


def test_erasing_zeroes_one_box_in_its_share_of_the_images():
    erased = erase(torch.ones(4000, 3, 32, 32), uniform(4000, 5), 0.25) == 0
    share = erased.float().mean((1, 2, 3))
    assert 0.22 < (share > 0).float().mean() < 0.28
    assert share[share > 0].min() > 0.01 and share.max() < 0.36 and 0.14 < share[share > 0].mean() < 0.21
    rows, columns = erased.any(3), erased.any(2)
    assert torch.equal(erased, rows[..., None] & columns[..., None, :])


def test_erased_boxes_have_the_mean_colour():
    augmentation = Augmentation(erasing=1.0)
    out = augmented(augmentation, random_images(8, 3, 32, 32), 32)
    assert ((out == 0).all(1).flatten(1).sum(1) >= 0.015 * 32 * 32).all()
