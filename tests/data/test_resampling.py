"""Crops resized for a whole batch against torchvision's and PyTorch's, one image at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from cifar10.data.augmentation.resampling import crop_and_resize
from cifar10.data.preprocessing import Preprocessing
from tests.data.test_transforms import random_images

INTERPOLATIONS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


@st.composite
def boxes_in(draw, height, width):
    rows, columns = draw(st.integers(1, height)), draw(st.integers(1, width))
    return draw(st.integers(0, height - rows)), draw(st.integers(0, width - columns)), rows, columns


@settings(max_examples=60, derandomize=True)
@given(st.data(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 33), st.sampled_from(sorted(INTERPOLATIONS)))
def test_each_box_is_resized_as_torchvision_does_it_alone(data, height, width, size, interpolation):
    boxes = data.draw(st.lists(boxes_in(height, width), min_size=1, max_size=4))
    mirrored = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes))))
    images = random_images(len(boxes), 3, height, width)
    got = crop_and_resize(images, torch.tensor(boxes), mirrored, size, interpolation)
    assert got.shape == (len(boxes), 3, size, size) and got.dtype == torch.float32
    for index, box in enumerate(boxes):
        mode = INTERPOLATIONS[interpolation]
        expected = resized_crop(images[index].double(), *box, [size, size], mode, antialias=True)
        expected = expected.flip(-1) if mirrored[index] else expected
        torch.testing.assert_close(got[index].double(), expected, rtol=0, atol=2e-2)
        alone = crop_and_resize(
            images[index : index + 1], torch.tensor([box]), mirrored[index : index + 1], size, interpolation
        )
        torch.testing.assert_close(alone[0], got[index], rtol=0, atol=1e-3)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("side", [56, 64, 200])
def test_the_whole_image_is_what_the_network_sees_in_evaluation(side, interpolation):
    images = random_images(3, 3, side, side)
    whole = torch.tensor([[0, 0, side, side]]).expand(3, -1)
    cropped = crop_and_resize(images, whole, torch.zeros(3, dtype=bool), 56, interpolation)
    resized = Preprocessing(56, interpolation=interpolation).resize(images.float())
    torch.testing.assert_close(cropped, resized, rtol=0, atol=1e-3)


def test_no_pixel_goes_unseen_when_a_large_box_becomes_small():
    impulses = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    for shift in range(8):  # one white column each, in the middle
        impulses[shift, :, :, 28 + shift] = 255
    boxes = torch.tensor([[0, 0, 64, 64]]).expand(8, -1)
    seen = crop_and_resize(impulses, boxes, torch.zeros(8, dtype=bool), 8, "bicubic").sum((1, 2, 3)) / (3 * 8 * 255)
    assert ((seen > 0.75 / 8) & (seen < 1.25 / 8)).all()  # an eighth as many columns


def test_resizing_happens_where_the_images_are():
    images = torch.zeros(4, 3, 20, 20, dtype=torch.uint8, device="meta")
    boxes, mirrored = torch.zeros(4, 4, dtype=torch.long, device="meta"), torch.zeros(4, dtype=bool, device="meta")
    assert crop_and_resize(images, boxes, mirrored, 8, "bicubic").device.type == "meta"
