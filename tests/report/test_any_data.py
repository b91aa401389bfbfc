"""A report of data sets that are not like CIFAR-10: files with names, unequal, two, many and missing classes."""

import json
import warnings
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from cifar10.report.comparison import evaluate
from cifar10.report.document import Findings, Link
from cifar10.report.figures.clusters import readable
from cifar10.report.groups import Run, group_runs
from cifar10.report.metrics import cluster
from cifar10.report.page import compose, plain, rows_on_lines
from cifar10.report.scores import score
from cifar10.report.sections.classes import class_by_class
from cifar10.report.sections.mistakes import shrunk, worst_mistakes


def make_run(labels, classes: int, files=None, name="cnn", **facts) -> Run:
    labels = np.asarray(labels)
    logits = np.random.default_rng(len(name)).normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    names = [f"class {label}" for label in range(classes)]
    return Run(name, 0, name, {"n": name}, names, logits, labels, logits, labels, facts, files=files)


def found(*runs: Run, images=None) -> Findings:
    groups = group_runs(runs)
    return Findings(groups, evaluate(groups), images)


def tables(document) -> list:
    return [block for section in document.sections for block in section.blocks if block.kind == "table"]


@given(st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1).filter(lambda name: name.strip(".")))
def test_a_file_of_any_name_is_a_link_to_that_file_alone(name):
    run = make_run([0, 1] * 10, 2, [name] * 20, data_root="/photos")
    file = worst_mistakes(run, score(run)["mistakes"]).rows[0][0]
    assert isinstance(file, Link) and file.text.isprintable()
    assert file.url.startswith("file:///photos/") and not set(file.url) & set(" \"'<>()#?\n")
    assert unquote(file.url.removeprefix("file://")) == str(Path("/photos", name))


def test_mistakes_are_named_with_the_most_confident_first_and_links_need_a_root():
    run = make_run(np.arange(60) % 3, 3, [f"{place}.jpg" for place in range(60)])
    mistakes = score(run)["mistakes"]
    assert [one["file"] for one in mistakes] == [f"{one['index']}.jpg" for one in mistakes]
    assert {one["index"] for one in mistakes} == set(np.flatnonzero(~run.correct))
    assert sorted((one["confidence"] for one in mistakes), reverse=True) == [one["confidence"] for one in mistakes]
    assert worst_mistakes(run, mistakes).rows[0][0] == mistakes[0]["file"]
    assert run.relabelled(np.where(run.labels == 0, -1, run.labels)).files[:2] == ["1.jpg", "2.jpg"]


def test_of_a_large_store_only_the_pictures_that_are_shown_are_read():
    class Store:
        def __getitem__(self, places):
            assert len(places) <= 32
            return np.zeros((len(places), 3, 300, 200), np.uint8)

    compose(found(make_run(np.arange(200) % 2, 2), make_run(np.arange(200) % 2, 2, name="b0"), images=Store()))
    assert shrunk(np.zeros((1, 3, 300, 200), np.uint8)).shape == (1, 3, 56, 37)
    small = np.zeros((1, 3, 32, 32), np.uint8)
    assert shrunk(small) is small


def test_unequal_classes_are_said_at_the_top_with_what_guessing_would_give():
    unequal = found(make_run([0] * 97 + [1] * 3, 2, class_counts={"train": [970, 30]}))
    (text,) = [paragraph.text for paragraph in compose(unequal).lead[1:]]
    assert "always answering class 0 gives 97.0" in text and "Balanced accuracy" in text and "macro F1" in text
    assert len(compose(found(make_run([0, 1] * 50, 2))).lead) == 1
    table = next(block for block in class_by_class(unequal) if block.kind == "table")
    assert table.header[:3] == ["class", "test images", "training"] and table.rows[1][1:3] == ["3", "30"]


def test_a_class_without_test_images_is_a_dash_and_moves_no_other_number():
    labels = np.array([0, 2] * 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        missing = found(make_run(labels, 3), make_run(labels, 3, name="b0"))
        rows = next(block for block in class_by_class(missing) if block.kind == "table").rows
    run = missing.groups[0].runs[0]
    assert [row[0] for row in rows[:3]] == run.class_names and set(rows[1][2:]) == {"\N{EN DASH}"}
    recalls = [run.correct[labels == label].mean() for label in (0, 2)]
    assert missing.summaries[0]["balanced_acc"]["mean"] == pytest.approx(np.mean(recalls))


def test_two_classes_have_scikit_learns_areas_and_others_none():
    run = make_run([0, 1, 1] * 20, 2)
    scores, positive = score(run), run.logits[:, 1] - run.logits[:, 0]
    assert scores["auroc"] == roc_auc_score(run.labels, positive)
    assert scores["average_precision"] == average_precision_score(run.labels, positive)
    assert scores["balanced_acc"] == pytest.approx(balanced_accuracy_score(run.labels, run.logits.argmax(1)))
    for other in (make_run([0, 1, 2] * 20, 3), make_run([1] * 20, 2)):
        assert score(other)["auroc"] is None
        assert "thresholds" not in [section.key for section in compose(found(other)).sections]
    assert "thresholds" in [section.key for section in compose(found(run)).sections]


def test_hundreds_of_classes_have_short_tables_and_top_5():
    labels = np.repeat(np.arange(200), 2)
    many = found(make_run(labels, 200), make_run(labels, 200, name="b0"))
    assert all(len(table.rows) < 50 for table in tables(compose(many)))
    logits = many.groups[0].runs[0].logits
    ranks = (logits > logits[np.arange(400), labels][:, None]).sum(axis=1)
    assert many.summaries[0]["top5_acc"]["mean"] == pytest.approx((ranks < 5).mean())


def test_classes_that_are_taken_for_each_other_stand_side_by_side():
    from scipy.cluster.hierarchy import leaves_list, to_tree

    blocks = np.random.default_rng(0).permutation(40) % 4
    matrix = 1 + 20 * (blocks[:, None] == blocks)
    linkage = cluster(matrix)
    order = blocks[leaves_list(linkage)]
    assert (np.diff(order) != 0).sum() == 3
    assert [size for size, named in readable(to_tree(linkage), 9.5) if named] == [10] * 4
    assert sum(size for size, _ in readable(to_tree(linkage), 3)) == 40


@pytest.mark.parametrize(
    "text", ["# a", "- a", "1. a", "> a", "*a*", "_a_", "`a`", "[a](b)", "<b>", "&lt;", "a|b", "a\nb"]
)
def test_markdown_shows_names_as_they_are(text):
    shown = plain(text)
    assert "\n" not in shown and shown.replace("\\", "") == text.replace("\n", " ") and shown != text
    assert plain("snake_case, 95 % (+1.0) & more") == "snake_case, 95 % (+1.0) & more"


@given(st.recursive(st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.none(), st.lists))
def test_json_says_the_same_with_its_lists_of_numbers_on_a_line(value):
    text = json.dumps([value], indent=2)
    assert json.loads(rows_on_lines(text)) == json.loads(text)
