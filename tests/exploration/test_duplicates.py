"""Copies are found whatever was done to them, and pictures that are merely alike are not."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar10.exploration import duplicates
from tests.exploration.conftest import textures

COUNT = 30


def compressed(image: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


CHANGES = {
    "nothing": lambda image: image,
    "compressed": compressed,
    "brighter": lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "grey": lambda image: image.mean(0, keepdims=True).repeat(3, 0).astype(np.uint8),
    "shifted": lambda image: np.roll(image, 1, 2),
    "mirrored": lambda image: image[:, :, ::-1],
}


def found_in(images: np.ndarray) -> list[list[int]]:
    return duplicates.near_pairs(lambda places: images[places].copy(), np.arange(len(images))).tolist()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change):
    images = textures(COUNT)
    assert found_in(np.concatenate([images, CHANGES[change](images[7])[None]])) == [[7, COUNT]]


def test_plain_areas_and_skies_are_no_copies():
    sky = np.linspace(90, 250, 48).astype(np.uint8)[:, None].repeat(48, 1)
    noise = np.random.default_rng(0).integers(0, 4, (6, 3, 48, 48), dtype=np.uint8)
    flat = np.full((2, 3, 48, 48), 255, np.uint8)
    assert found_in(np.concatenate([sky + noise, flat])) == []


def test_only_the_places_asked_about_are_compared():
    images = textures(4)[[0, 1, 0, 2, 0]]
    assert duplicates.near_pairs(lambda places: images[places], np.array([2, 3, 4])).tolist() == [[2, 4]]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 1), st.sampled_from(["train", "test"]))))
def test_exact_copies_are_the_pictures_of_equal_digest(pictures):
    digests, labels, splits = (np.array([one[part] for one in pictures]) for part in range(3))
    groups = duplicates.exact(digests.astype(str), labels, splits)
    expected = {
        tuple(index for index, one in enumerate(pictures) if one[0] == digest)
        for digest in "abc"
        if sum(one[0] == digest for one in pictures) > 1
    }
    assert {group.members for group in groups} == expected
    for group in groups:
        members = [pictures[index] for index in group.members]
        assert group.labels_differ == (len({label for _, label, _ in members}) > 1)
        assert group.across_splits == (len({split for *_, split in members}) > 1)


def test_near_copies_are_chained_and_exact_ones_left_out():
    digests, labels, splits = np.array(list("abcdd")), np.zeros(5, int), np.array(["train"] * 2 + ["test"] * 3)
    [group] = duplicates.near(np.array([[0, 1], [1, 2], [3, 4]]), digests, labels, splits)
    assert group == duplicates.Group((0, 1, 2), across_splits=True, labels_differ=False)
