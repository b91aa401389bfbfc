"""Labels that are wrong are found by what the pictures look like."""

import sys

import numpy as np
import pytest

from cifar10.errors import UserError
from cifar10.exploration import labels


def clusters(classes: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Features with a cluster for each class, and the true labels."""
    rng = np.random.default_rng(0)
    truth = np.arange(classes * each) % classes
    return rng.normal(0, 6, (classes, 16))[truth] + rng.normal(0, 1, (len(truth), 16)), truth


def test_swapped_labels_are_found_first_with_the_right_class():
    pytest.importorskip("cleanlab")
    features, truth = clusters(5, 40)
    given = truth.copy()
    swapped = [3, 50, 121, 199]
    given[swapped] = (truth[swapped] + 1) % 5
    found, predicted = labels.find(features, given)
    assert {one.place for one in found} <= set(swapped) and len(found) >= 2  # how many is an estimate, on the safe side
    for one in found:
        assert (one.label, one.suggested) == (given[one.place], truth[one.place]) and 0.2 < one.confidence <= 1
    assert predicted == pytest.approx(1 - 4 / 200, abs=0.02)


def test_classes_too_small_to_be_predicted_are_left_out():
    pytest.importorskip("cleanlab")
    features, truth = clusters(4, 30)
    given = np.where(truth == 2, 7, truth)  # class 2 has no picture at all
    given[truth == 3] = 3
    kept = (truth != 3) | (np.cumsum(truth == 3) < labels.FOLDS)
    found, _ = labels.find(features[kept], given[kept])
    assert all(one.suggested in (0, 1, 7) and one.label in (0, 1, 7) for one in found)
    assert labels.find(features[truth == 0], given[truth == 0]) == ([], 0.0)


def test_without_cleanlab_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(UserError, match=r"^needs cleanlab: pip install cleanlab"):
        labels.find(*clusters(2, 10))
