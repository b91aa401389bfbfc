"""Runs grouped and compared: hand-made predictions, so that every number can be told in advance."""

import json

import numpy as np
import pytest

from cifar10.report.comparison import compare, efficiency, evaluate, relabel
from cifar10.report.groups import Run, check_comparable, group_runs, largest, repeats
from cifar10.report.scores import score

NAMES = ["cat", "dog", "ship"]
LABELS = np.arange(60) % 3


def make_run(name="cnn", seed=0, wrong=(), folder=None, **recipe) -> Run:
    """A run that is right, and sure of it, on all images but those in `wrong`, which it takes for the next class."""
    predicted = LABELS.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 3
    logits = 4.0 * np.eye(3)[predicted]
    facts = {
        "data": "three classes",
        "data_sha256": "one",
        "summary": {"train_images": recipe.get("data.train_size", 100), "seconds": 10.0},
        "cost": {"train_flops": 5, "phases": []},
    }
    folder = folder or f"{name}_{seed}"
    return Run(name, seed, folder, recipe, NAMES, logits, LABELS, logits, LABELS, facts, [{"epoch": 0, "phase": 1.0}])


def test_runs_that_differ_in_their_seed_alone_are_one_group_in_the_order_of_first_appearance():
    runs = [make_run("b0", 1, lr=2), make_run("cnn", 1, lr=1), make_run("b0", 0, lr=2), make_run("cnn", 0, lr=1)]
    groups = group_runs(runs)
    assert [(group.name, [run.seed for run in group.runs]) for group in groups] == [("b0", [0, 1]), ("cnn", [0, 1])]


def test_groups_of_the_same_name_are_told_apart_by_what_differs():
    groups = group_runs([make_run(**{"model.lr": 0.1, "depth": 3}), make_run(**{"model.lr": 0.2, "depth": 3})])
    assert [group.name for group in groups] == ["cnn (lr=0.1)", "cnn (lr=0.2)"]


def test_more_groups_of_the_same_name_than_settings_tell_apart_are_numbered():
    runs = [make_run(folder=str(lr), **dict.fromkeys("abc", lr > 1), **{"model.lr": lr}) for lr in (1, 2, 3, 4)]
    names = [group.name for group in group_runs(runs)]
    assert names[1:] == ["cnn (a=True, b=True, c=True, ...)" + end for end in ("", " #2", " #3")]


def test_the_same_number_of_training_images_is_the_same_recipe_however_it_was_set():
    runs = [
        make_run(seed=0),
        make_run(seed=1, **{"data.train_size": 100}),
        make_run(seed=2, **{"data.train_size": 1.0}),
    ]
    for run in runs:
        run.facts["summary"]["train_images"] = 100
    (group,) = group_runs(runs)
    assert [run.seed for run in group.runs] == [0, 1, 2] and efficiency([group]) == []


def test_a_second_run_of_the_same_seed_is_no_second_sample():
    runs = [make_run(lr=1), make_run(lr=1, folder="again"), make_run(seed=1, lr=1), make_run(lr=2, folder="other")]
    assert repeats(runs) == {"again": "cnn_0"} and check_comparable(runs) == {}


def test_names_can_be_given_and_must_fit():
    runs = [make_run("cnn", lr=1), make_run("b0", lr=2)]
    assert [group.name for group in group_runs(runs, ["A", "B"])] == ["A", "B"]
    with pytest.raises(ValueError, match="3 for 2 groups: cnn, b0"):
        group_runs(runs, ["A", "B", "C"])


def test_a_run_is_scored_with_its_interval_and_its_most_frequent_confusions():
    scores = score(make_run(wrong=[0, 3, 1]))  # two cats as dogs, one dog as a ship
    assert scores["acc"] == pytest.approx(57 / 60) and scores["low"] < 57 / 60 < scores["high"]
    assert [(row["true"], row["predicted"], row["count"]) for row in scores["most_confused"]] == [
        ("cat", "dog", 2),
        ("dog", "ship", 1),
    ]
    assert scores["most_confused"][0]["share"] == pytest.approx(2 / 20)


def test_the_temperature_comes_from_the_validation_images_alone():
    run = make_run(wrong=range(30))
    run.val_logits, run.val_labels = make_run(wrong=[0]).val_logits, LABELS
    other = make_run(wrong=[5])
    other.val_logits = run.val_logits
    assert score(run)["temperature"] == score(other)["temperature"] != score(make_run(wrong=range(30)))["temperature"]


def test_a_comparison_counts_the_images_that_only_one_gets_right():
    (one,), (two,) = (group_runs([make_run(name, wrong=wrong)]) for name, wrong in (("a", [0, 1, 2]), ("b", [2, 3])))
    found = compare(one, two)
    assert found["only_baseline"] == [3] and found["only_other"] == [0, 1]
    assert (found["mcnemar"]["only_a"], found["mcnemar"]["only_b"], found["mcnemar"]["neither"]) == (1, 2, 1)
    assert found["difference"] == pytest.approx(1 / 60) and found["seed_interval"] is None
    assert "unknown" in found["verdict"]


def test_by_class_the_difference_is_that_of_recall():
    (one,), (two,) = (group_runs([make_run(name, wrong=wrong)]) for name, wrong in (("a", [0, 3]), ("b", [1])))
    assert [row["difference"] for row in compare(one, two)["by_class"]] == pytest.approx([2 / 20, -1 / 20, 0])


def test_with_seeds_means_are_compared_and_both_kinds_of_uncertainty_named():
    runs = [make_run("a", seed, range(20 + seed), lr=1) for seed in range(3)]
    runs += [make_run("b", seed, range(seed), lr=2) for seed in range(2)]
    results = evaluate(group_runs(runs))
    assert results["groups"][0]["acc"] == pytest.approx({"mean": 39 / 60, "std": 1 / 60, "n": 3})
    (found,) = results["comparisons"]
    assert found["difference"] == pytest.approx(59.5 / 60 - 39 / 60) and found["pairs"] == 6
    assert found["seed_interval"]["low"] > 0 and "both kinds of uncertainty" in found["verdict"]
    assert np.array(results["groups"][0]["confusion_matrix"]).sum() == 180, "the runs of a group are added up"


def test_the_result_is_ready_for_json():
    json.dumps(evaluate(group_runs([make_run("a", wrong=[1], lr=1), make_run("b", lr=2)])))


def test_other_labels_are_counted_and_left_out_images_do_not_count():
    labels = LABELS.copy()
    labels[0], labels[1] = 1, -1
    groups = group_runs([make_run("a", wrong=[0, 1], lr=1), make_run("b", lr=2)])
    found = relabel(groups, labels)
    assert (found["changed"], found["left_out"], found["images"]) == (1, 1, 59)
    assert found["groups"][0]["original"]["mean"] == pytest.approx(58 / 60)
    assert found["groups"][0]["acc"]["mean"] == 1.0, "a cat called a dog is a dog on the new label"
    assert found["groups"][1]["acc"]["mean"] == pytest.approx(58 / 59)
    assert found["comparisons"][0]["difference"] == pytest.approx(-1 / 59)


def test_accuracies_are_ordered_by_the_number_of_training_images():
    runs = [
        make_run(wrong=range(9 - size), seed=seed, **{"data.train_size": size}) for size in (5, 2) for seed in (0, 1)
    ]
    groups = group_runs(runs)
    (series,) = efficiency(groups)
    assert series["name"] == "cnn" and series["sizes"] == [2, 5] and series["accs"][1] == [56 / 60, 56 / 60]
    assert [group.runs[0].recipe["data.train_size"] for group in largest(groups)] == [5]


def test_recipes_that_differ_otherwise_are_no_question_of_data():
    assert efficiency(group_runs([make_run(lr=1, **{"data.train_size": 2}), make_run(lr=2)])) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_names": ["cat", "dog", "boat"]}, "has other classes than first: boat instead of ship"),
        ({"class_names": ["cat", "ship", "dog"]}, "has the classes of first in another order"),
        ({"class_names": ["cat", "dog", "ship", "boat"]}, "boat instead of none"),
        ({"class_names": ["cat", "dog", "ship "]}, "'ship ' instead of 'ship'"),
        ({"class_names": ["cat", "dog", "\uff53hip"]}, r"'\uff53hip' instead of 'ship'"),
        ({"facts": {"data": "others", "data_sha256": "two"}}, "tested on different images (others, 60 images)"),
        ({"labels": LABELS[::-1]}, "different labels"),
        ({"labels": LABELS[:30], "logits": np.eye(3)[LABELS[:30]]}, "30 images"),
    ],
)
def test_what_cannot_be_compared_with_the_first_run_is_named(change, reason):
    first, other = make_run(folder="first"), make_run(folder="other")
    for key, value in change.items():
        setattr(other, key, value)
    problems = check_comparable([first, make_run(seed=1, folder="same"), other])
    assert list(problems) == ["other"] and reason in problems["other"]
