"""Colour changes of a whole batch against torchvision's, one image and one factor at a time."""

import itertools

import pytest
import torch
import torchvision.transforms.v2.functional as reference

from cifar10.data.augmentation.colour import jitter, recolour
from tests.data.test_transforms import random_images, uniform

ADJUST = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
}
FACTORS = (0.0, 0.3, 0.9, 1.0, 1.5, 1.9)


def change(images, **factors):
    """`recolour` by the factors named; the others leave the images as they are."""
    still = dict.fromkeys(ADJUST, torch.ones(len(images))) | {"hue": torch.zeros(len(images))}
    return recolour(images, **still | factors)


@pytest.mark.parametrize("name", ADJUST)
def test_each_factor_is_torchvisions_on_each_image(name):
    images = random_images(len(FACTORS), 3, 16, 20)
    got = change(images, **{name: torch.tensor(FACTORS)})
    for index, factor in enumerate(FACTORS):
        expected = ADJUST[name](images[index], factor).float()
        assert (got[index] - expected).abs().max() <= 2  # torchvision cuts fractions off, once or twice


@pytest.mark.parametrize("order", list(itertools.permutations(ADJUST)), ids=" ".join)
def test_where_nothing_is_clipped_all_orders_are_the_same(order):
    images = 80 + random_images(3, 3, 8, 8) // 4
    factors = {"brightness": 1.2, "contrast": 0.7, "saturation": 1.3}
    expected = images.double() / 255
    for name in order:
        expected = torch.stack([ADJUST[name](image, factors[name]) for image in expected])
    got = change(images, **{name: torch.full((3,), factor) for name, factor in factors.items()})
    torch.testing.assert_close(got.double(), 255 * expected, rtol=0, atol=0.2)


def test_a_turn_of_the_hue_keeps_brightness_and_greys_and_a_whole_one_changes_nothing():
    images = 110 + random_images(4, 3, 8, 8) // 16
    turned = change(images, hue=torch.tensor([0.25, -0.25, 0.5, 1.0]))
    for one, other in zip(images, turned, strict=True):
        brightness = [reference.rgb_to_grayscale(image.double()) for image in (one, other)]
        torch.testing.assert_close(*brightness, rtol=0, atol=0.05)
    torch.testing.assert_close(turned[3], images[3].float(), rtol=0, atol=1e-2)
    assert (turned[:3] - images[:3]).abs().mean((1, 2, 3)).min() > 3
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(change(grey, hue=uniform(4)), grey.float(), rtol=0, atol=0.05)


def test_a_positive_turn_goes_from_red_towards_green_as_in_torchvision():
    red = torch.tensor([200, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1)
    ours, theirs = change(red, hue=torch.tensor([1 / 6]))[0, :, 0, 0], reference.adjust_hue(red, 1 / 6)[0, :, 0, 0]
    assert ours[0] > ours[2] and ours[1] > ours[2] and theirs[1] > theirs[2]


def test_the_jitters_factors_are_even_around_one():
    images = torch.full((4000, 3, 1, 1), 100, dtype=torch.uint8)
    brightness = jitter(images, uniform(4000, 4), 0.4, 0.0)[:, 0, 0, 0] / 100
    assert brightness.min() > 0.599 and brightness.max() < 1.401
    counts = ((brightness - 0.6) / 0.8 * 10).long().clamp(0, 9).bincount(minlength=10)
    assert ((counts - 400.0) ** 2 / 400).sum() < 30  # chi-square with 9 degrees of freedom


def test_colours_change_where_the_images_are():
    images, draws = torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device="meta"), torch.zeros(4, 4, device="meta")
    assert jitter(images, draws, 0.4, 0.1).device.type == "meta"
