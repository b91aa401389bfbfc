"""What a data module holds, as plain arrays; and a sample in which no class is forgotten."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cifar10.exploration.collect import collect, sample


@given(st.lists(st.integers(0, 6), min_size=1), st.integers(1, 60))
def test_a_sample_has_its_share_of_every_class(labels, most):
    labels = np.array(labels)
    places = sample(labels, most)
    assert len(places) == min(most, len(labels)) and (np.diff(places) > 0).all()
    assert set(places) <= set(sample(labels, most + 1))
    if most >= len(set(labels)):
        assert set(labels[places]) == set(labels)
    counts, taken = np.bincount(labels), np.bincount(labels[places], minlength=labels.max() + 1)
    assert (np.abs(taken - counts * len(places) / len(labels)) <= len(set(labels))).all()


def test_arrays_become_pictures_with_names_in_all_splits(datamodule):
    found = collect(datamodule)
    assert {split: (found.splits == split).sum() for split in ("train", "val", "test")} == {
        "train": 160, "val": 40, "test": 40,
    }  # fmt: skip
    assert len(set(found.files)) == len(found) == 240 and found.files[-1] == "test 39"
    assert (found.sizes == 32).all()
    for place in (0, 170, 239):  # one of each split
        part, number = found.files[place].split()
        images, labels = datamodule.loaded[part]
        assert (found.read(np.array([place]))[0] == images[int(number)].numpy()).all()
        assert found.labels[place] == labels[int(number)]
    mixed = found.read(np.array([239, 0, 170]))
    assert (mixed[1] == found.read(np.array([0]))[0]).all() and mixed.dtype == np.uint8
