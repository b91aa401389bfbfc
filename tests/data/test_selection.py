"""Which pictures take part, and in which split: drawn once, remembered, readable, and none twice."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cifar10.data.pictures import SPLITS, UNUSED, Pictures
from cifar10.data.pictures.selection import (
    check_readable,
    draw,
    duplicates,
    follow,
    leave_out_duplicates,
    shown_names,
)
from cifar10.data.pictures.tables import Row, read_table, write_table
from cifar10.errors import UserError

NAMES = ("ant", "bee", "cat")
many = settings(max_examples=60, derandomize=True)
labels = st.lists(st.integers(0, 2), min_size=30, max_size=120)


def pictures(labels, splits=None):
    files = tuple(f"{number}.jpg" for number in range(len(labels)))
    splits = np.array([""] * len(labels) if splits is None else splits)
    return Pictures(files, np.array(labels), splits, lambda index: b"", "f")


def rows(found, splits):
    return [
        Row(file, NAMES[label], str(split))
        for file, label, split in zip(found.files, found.labels, splits, strict=True)
    ]


@many
@given(labels, st.integers(0, 5))
def test_a_drawn_split_is_stratified_and_the_same_for_the_same_seed(labels, seed):
    found = pictures(labels)
    splits = draw(found, 0.2, 0.2, None, seed)
    assert np.array_equal(splits, draw(found, 0.2, 0.2, None, seed)) and set(splits) <= set(SPLITS)
    assert Counter(splits)["test"] == round(0.2 * len(labels))
    for label, count in Counter(labels).items():
        test = int(((splits == "test") & (found.labels == label)).sum())
        assert abs(test - 0.2 * count) < 0.5 + 3 / 2 * count / len(labels) + 1


@many
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SPLITS)), min_size=10, max_size=60))
def test_what_the_source_says_is_never_changed(members):
    found = pictures(*zip(*members, strict=True))
    assume((found.splits == "train").sum() > 5)
    splits = draw(found, 0.2, 0.2, None, 0)
    given = found.splits != "train" if "val" not in found.splits else np.full(len(members), True)
    assert np.array_equal(splits[given], found.splits[given])
    assert set(splits[~given]) <= {"train", "val"}


@many
@given(labels, st.integers(1, 20))
def test_a_run_keeps_its_split_whatever_is_added(tmp_path_factory, labels, more):
    table = tmp_path_factory.mktemp("run") / "split.csv"
    found = pictures(labels)
    assume(len(set(labels)) == 3)
    splits = draw(found, 0.2, 0.2, 0.5, 0)
    write_table(table, rows(found, splits))
    followed = follow(pictures(labels + [0] * more), NAMES, read_table(table), SPLITS)
    assert np.array_equal(followed[: len(labels)], splits) and set(followed[len(labels) :]) == {UNUSED}


def test_what_is_no_longer_the_run_s_is_named():
    found = pictures([0, 1, 2, 0])
    kept = rows(found, ["train", "train", "val", "test"])
    with pytest.raises(UserError, match=r"^1 of the run's pictures are gone \(9.jpg\)"):
        follow(found, NAMES, [*kept, Row("9.jpg", "ant", "test")], ["val", "test"])
    follow(found, NAMES, [*kept, Row("9.jpg", "ant", "train")], ["val", "test"])  # which evaluation does without
    with pytest.raises(UserError, match=r"^1 of the run's pictures have another label \(3.jpg\)"):
        follow(found, NAMES, [*kept[:3], Row("3.jpg", "bee", "test")], SPLITS)
    with pytest.raises(UserError, match=r"no longer those that the run was trained on \(new: 'cat'; gone: 'dog'\)"):
        follow(
            found, NAMES, [Row("0.jpg", "ant", "val"), Row("1.jpg", "bee", "val"), Row("2.jpg", "dog", "val")], SPLITS
        )


@many
@given(st.lists(st.tuples(st.sampled_from((*SPLITS, UNUSED)), st.integers(0, 9)), max_size=40))
def test_after_leaving_duplicates_out_no_content_is_in_two_splits(members):
    splits, digests = np.array([split for split, _ in members], "<U6"), np.array([f"{digest}" for _, digest in members])
    groups = duplicates(splits, digests)
    kept = leave_out_duplicates(splits, groups)
    for digest in set(digests.tolist()):
        where = set(splits[digests == digest].tolist()) - {UNUSED}
        assert any(digests[group[0]] == digest for group in groups) == (len(where) > 1)
        assert set(kept[digests == digest].tolist()) - {UNUSED} == ({max(where, key=SPLITS.index)} if where else set())


def test_pictures_that_cannot_be_read_are_refused_beyond_a_share_of_their_class():
    found = pictures([0] * 200 + [1] * 10)
    errors = {index: "empty" for index in (0, 1, 205)}
    check_readable(found, NAMES, errors, 0.01)  # of a small class, one
    check_readable(found, NAMES, errors, 2)
    with pytest.raises(UserError, match=r"^3 of 200 pictures of the class ant cannot be read \(0.jpg: empty; .*=0.01"):
        check_readable(found, NAMES, errors | {2: "empty"}, 0.01)
    with pytest.raises(UserError, match=r"all are listed in run/unreadable\.csv$"):
        check_readable(found, NAMES, errors, 0, "run/unreadable.csv")


@pytest.mark.parametrize(
    ("labels", "sizes", "words"),
    [
        ([0, 1], (0.2, 0.2, None), "test_size=0.2: too few pictures"),
        ([0, 1] * 10, (21, 0.2, None), "test_size=21: must be 1 to 20 of the 20 pictures"),
        ([0, 1] * 10, (2, 0.01, None), "val_size=0.01: too few pictures"),
        ([0, 1] * 10, (2, 2, 17), "train_size=17: must be 1 to 16"),
    ],
)
def test_sizes_that_leave_nothing_are_refused(labels, sizes, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        draw(pictures(labels), *sizes, 0)


def test_names_that_look_alike_are_shown_apart():
    assert shown_names(["cat", "dog"], ["cat"]) == ("cat, dog", "cat")
    one, other = shown_names(["caf\u00e9"], ["cafe\u0301"])
    assert one != other and one.isascii() and other.isascii()
