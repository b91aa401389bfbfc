"""TrivialAugment and RandAugment on a batch against torchvision's operations, called image by image."""

import math

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.data.augmentation.policies import CHANGES, LEVELS, OPERATIONS, POLICIES, apply_policy
from tests.data.test_transforms import uniform

BILINEAR = v2.InterpolationMode.BILINEAR


def photographs(count, side=32, seed=0):
    """Smooth pictures with edges, darker and brighter ones, as noise looks the same after most operations."""
    coarse = uniform(count, 3, 5, 5, seed=seed) * uniform(count, 1, 1, 1, seed=seed + 1)
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    images[:, :, side // 3 : side // 2, side // 4 :] = 1 - images[:, :, side // 3 : side // 2, side // 4 :]
    return (255 * images).round().to(torch.uint8)


def chosen(operation, level, sign):
    """The random numbers that make this choice."""
    return [(OPERATIONS.index(operation) + 0.5) / len(OPERATIONS), (level + 0.5) / LEVELS, 0.5 + 0.25 * sign]


def apply_torchvision(image, operation, strength, policy):
    """One operation at a signed strength from -1 to 1, as `TrivialAugmentWide` and `RandAugment` call it."""
    side = image.shape[-1]
    shear = math.degrees(math.atan(strength * policy.shear))
    shift = int(strength * policy.translation(side))
    still = {"angle": 0.0, "scale": 1.0, "interpolation": BILINEAR}
    factor = 1 + strength * policy.enhancement
    return {
        "identity": lambda: image,
        "shear_x": lambda: reference.affine(image, translate=[0, 0], shear=[shear, 0.0], center=[0, 0], **still),
        "shear_y": lambda: reference.affine(image, translate=[0, 0], shear=[0.0, shear], center=[0, 0], **still),
        "translate_x": lambda: reference.affine(image, translate=[shift, 0], shear=[0.0, 0.0], **still),
        "translate_y": lambda: reference.affine(image, translate=[0, shift], shear=[0.0, 0.0], **still),
        "rotate": lambda: reference.rotate(image, strength * policy.rotation, interpolation=BILINEAR),
        "brightness": lambda: reference.adjust_brightness(image, factor),
        "saturation": lambda: reference.adjust_saturation(image, factor),
        "contrast": lambda: reference.adjust_contrast(image, factor),
        "sharpness": lambda: reference.adjust_sharpness(image, factor),
        "posterize": lambda: reference.posterize(image, round(8 - abs(strength) * policy.bits)),
        "solarize": lambda: reference.solarize(image, round(255 * (1 - abs(strength)), 3)),
        "autocontrast": lambda: reference.autocontrast(image),
        "equalize": lambda: reference.equalize(image),
    }[operation]()


def assert_close(got, expected):
    """Within a rounding step."""
    assert got.dtype == torch.uint8
    assert (got.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("side", [32, 37])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_at_any_level_is_torchvisions_on_each_image(operation, side):
    choices = [(level, sign) for level in (0, 1, 4, 9, 15, 20, 29, 30) for sign in (-1, 1)]
    images = photographs(len(choices), side)
    draws = torch.tensor([chosen(operation, level, sign) + [0.0] * 3 for level, sign in choices])
    got = apply_policy(images, draws, "trivialaugment")
    for index, (level, sign) in enumerate(choices):
        strength = sign * level / (LEVELS - 1)
        assert_close(got[index], apply_torchvision(images[index], operation, strength, POLICIES["trivialaugment"]))
    if operation != "identity":
        assert (got != images).float().mean() > 0.1


def test_randaugment_is_two_operations_at_level_9_in_the_order_drawn():
    choices = [(first, second, sign) for first in OPERATIONS for second in OPERATIONS for sign in (-1, 1)]
    images = photographs(len(choices))
    draws = torch.tensor([chosen(first, 25, sign) + chosen(second, 3, -sign) for first, second, sign in choices])
    got = apply_policy(images, draws, "randaugment")
    expected = images.clone()
    for index, (first, second, sign) in enumerate(choices):
        for operation, direction in ((first, sign), (second, -sign)):
            strength = direction * 9 / 30
            expected[index] = apply_torchvision(expected[index], operation, strength, POLICIES["randaugment"])
    off = (got.int() - expected.int()).abs().float().mean((1, 2, 3))
    assert (off < 0.5).float().mean() > 0.98, "a rounding step can become more at a threshold and in equalize"


@pytest.mark.parametrize(("name", "ours"), [("TrivialAugmentWide", "trivialaugment"), ("RandAugment", "randaugment")])
def test_operations_and_their_greatest_strengths_are_torchvisions(name, ours):
    policy, side = POLICIES[ours], 224
    names = {"saturation": "Color", "autocontrast": "AutoContrast"}
    table = getattr(v2, name)._AUGMENTATION_SPACE
    assert {names.get(each, each.title().replace("_", "")) for each in OPERATIONS} == set(table)
    most = {
        **dict.fromkeys(["ShearX", "ShearY"], policy.shear),
        **dict.fromkeys(["TranslateX", "TranslateY"], policy.translation(side)),
        **dict.fromkeys(["Brightness", "Color", "Contrast", "Sharpness"], policy.enhancement),
        **{"Rotate": policy.rotation, "Posterize": 8 - policy.bits},
    }
    for each, expected in most.items():
        assert float(table[each][0](LEVELS, side, side)[-1]) == pytest.approx(expected)


@settings(max_examples=15, derandomize=True)
@given(st.sampled_from(sorted(POLICIES)), st.integers(1, 9), st.integers(0, 999))
def test_an_image_does_not_depend_on_its_neighbours_and_the_batch_is_left_as_it_is(name, count, seed):
    images, draws = photographs(count, seed=seed), uniform(count, 6, seed=seed)
    before = images.clone()
    together = apply_policy(images, draws, name)
    alone = [apply_policy(images[i : i + 1], draws[i : i + 1], name) for i in range(count)]
    assert_close(together, torch.cat(alone))
    assert torch.equal(images, before)


def test_operations_levels_and_signs_are_drawn_evenly():
    count = 20_000
    grey = torch.full((count, 3, 3, 3), 100, dtype=torch.uint8)
    draws = uniform(count, 6)
    got = apply_policy(grey, draws, "trivialaugment")
    operation = (draws[:, 0] * len(OPERATIONS)).long()
    level = (draws[:, 1] * LEVELS).long()
    for drawn, kinds in ((operation, len(OPERATIONS)), (level, LEVELS)):
        counts = drawn.bincount(minlength=kinds).float()
        assert len(counts) == kinds and ((counts - count / kinds) ** 2 / (count / kinds)).sum() < 2.5 * kinds
    brighter = got[operation == OPERATIONS.index("brightness")][:, 0, 0, 0].float()
    assert brighter.min() <= 2 and brighter.max() >= 198 and abs(brighter.mean() - 100) < 5


def test_a_draw_that_half_precision_rounded_up_to_one_is_the_last_operation():
    images = photographs(2)
    ends = torch.tensor([[1.0] * 6, chosen(OPERATIONS[-1], LEVELS - 1, 1) + [0.0] * 3])
    got = apply_policy(images[:1].expand(2, -1, -1, -1), ends, "trivialaugment")
    assert torch.equal(got[0], got[1])


def test_plain_torchvision_would_treat_all_images_of_a_batch_alike():
    images = photographs(1).expand(64, -1, -1, -1)
    assert len(v2.TrivialAugmentWide()(images).unique(dim=0)) == 1, "then our own code is no longer needed"
    assert len(apply_policy(images, uniform(64, 6), "trivialaugment").unique(dim=0)) > 32


def test_every_change_happens_where_the_images_are():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device="meta")
    operation, level = torch.zeros(4, dtype=torch.long, device="meta"), torch.zeros(4, device="meta")
    for change in CHANGES:
        assert change(images, operation, level, level, POLICIES["randaugment"]).device.type == "meta"
