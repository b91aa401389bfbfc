"""What holds of the figures of an evaluation whatever the logits and labels, and of learning rates at every step."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.models.learning_rates import Schedule
from cifar10.report.calibration import calibration, coverage_curve, coverage_summary, fit_temperature
from cifar10.report.metrics import classification_metrics, most_confused
from cifar10.report.statistics import (
    mcnemar,
    paired_bootstrap,
    paired_bootstrap_by_class,
    seed_interval,
    spread,
    wilson_interval,
)

some = settings(max_examples=50, derandomize=True)
trials = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=6)


@st.composite
def scored(draw):
    """Logits (N, C) with ties now and then, labels, and the generator that drew them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, classes, scale = draw(st.integers(1, 50)), draw(st.integers(2, 6)), draw(st.sampled_from([0.0, 0.3, 3.0, 40.0]))
    logits = rng.normal(size=(n, classes)) * scale
    if draw(st.booleans()):
        logits = logits.round()
    return logits, rng.integers(0, classes, n), rng


def names(classes):
    return [f"class {number}" for number in range(classes)]


@some
@given(scored())
def test_the_confusion_matrix_adds_up_to_the_images_and_every_ratio_is_one(case):
    logits, labels, _ = case
    found = classification_metrics(logits, labels, names(logits.shape[1]))
    matrix, rows = np.array(found["confusion_matrix"]), found["per_class"]
    assert matrix.sum() == found["n"] == len(labels) and (matrix >= 0).all()
    assert (
        matrix.sum(axis=1).tolist()
        == [row["support"] for row in rows]
        == np.bincount(labels, minlength=len(rows)).tolist()
    )
    assert found["acc"] == pytest.approx(np.trace(matrix) / len(labels))
    assert all(np.isnan(row["f1"]) == (row["support"] == 0) for row in rows)
    for row in (row for row in rows if row["support"]):
        assert all(0 <= row[key] <= 1 for key in ("precision", "recall", "f1"))
        assert min(row["precision"], row["recall"]) - 1e-12 <= row["f1"] <= max(row["precision"], row["recall"]) + 1e-12
    assert 0 <= found["macro_f1"] <= 1 and found["loss"] >= 0
    mistakes = most_confused(matrix.tolist(), names(logits.shape[1]), most=10**6)
    assert sum(mistake["count"] for mistake in mistakes) == len(labels) - np.trace(matrix)
    assert all(0 < mistake["share"] <= 1 and mistake["true"] != mistake["predicted"] for mistake in mistakes)


@some
@given(scored())
def test_the_order_of_the_images_changes_no_figure(case):
    logits, labels, rng = case
    order = rng.permutation(len(labels))
    one, other = (
        classification_metrics(*pair, names(logits.shape[1]))
        for pair in ((logits, labels), (logits[order], labels[order]))
    )
    assert one.pop("loss") == pytest.approx(other.pop("loss")) and json.dumps(one) == json.dumps(other)


@some
@given(scored())
def test_other_numbers_for_the_classes_move_their_rows_and_change_nothing_else(case):
    logits, labels, rng = case
    logits = logits + rng.random(logits.shape) * 1e-6  # no ties, which the first class wins
    classes = logits.shape[1]
    number = rng.permutation(classes)  # the new number of each class
    moved = np.empty_like(logits)
    moved[:, number] = logits
    one = classification_metrics(logits, labels, names(classes))
    other = classification_metrics(moved, number[labels], names(classes))
    for key in ("acc", "loss", "macro_f1"):
        assert one[key] == pytest.approx(other[key])
    assert np.array_equal(np.array(other["confusion_matrix"])[np.ix_(number, number)], one["confusion_matrix"])
    assert calibration(logits, labels) == pytest.approx(calibration(moved, number[labels]))


@some
@given(scored(), st.floats(-50, 50))
def test_a_number_added_to_all_logits_of_an_image_changes_no_figure(case, shift):
    logits, labels, _ = case
    assert calibration(logits + shift, labels)["brier"] == pytest.approx(calibration(logits, labels)["brier"])
    assert calibration(logits + shift, labels)["loss"] == pytest.approx(calibration(logits, labels)["loss"], abs=1e-9)


@some
@given(scored())
def test_temperature_scaling_never_worsens_the_loss_it_is_fitted_to_and_keeps_predictions(case):
    logits, labels, _ = case
    temperature = fit_temperature(logits, labels)
    assert calibration(logits, labels, temperature)["loss"] <= calibration(logits, labels)["loss"]
    assert np.array_equal((logits / temperature).argmax(axis=1), logits.argmax(axis=1))
    assert coverage_curve(logits, labels)[1][-1] == (logits.argmax(axis=1) == labels).mean()


@some
@given(scored())
def test_coverage_grows_by_one_image_at_a_time_and_the_summary_is_read_off_the_curve(case):
    logits, labels, _ = case
    coverage, acc = coverage_curve(logits, labels)
    found = coverage_summary(logits, labels)
    assert np.allclose(np.diff(coverage, prepend=0), 1 / len(labels)) and ((acc >= 0) & (acc <= 1)).all()
    right = np.rint(acc * np.arange(1, len(acc) + 1))
    assert set(np.diff(right, prepend=0)) <= {0, 1}
    assert found["acc_at"]["1.0"] == acc[-1] and 0 <= found["aurc"] <= 1
    assert found["coverage_at_acc"]["0.99"] <= found["coverage_at_acc"]["0.95"] <= 1


@some
@given(trials, st.floats(0.5, 0.999))
def test_wilsons_interval_holds_the_accuracy_lies_in_0_to_1_and_widens_with_confidence(case, confidence):
    correct, n = case
    low, high = wilson_interval(correct, n, confidence)
    assert 0 <= low <= correct / n + 1e-12 and correct / n - 1e-12 <= high <= 1
    wider = wilson_interval(correct, n, (1 + confidence) / 2)
    assert wider[0] <= low + 1e-12 and high <= wider[1] + 1e-12
    more = wilson_interval(4 * correct, 4 * n, confidence)
    assert more[1] - more[0] < high - low


outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(np.array)


@some
@given(outcomes, outcomes)
def test_images_that_both_get_right_or_wrong_do_not_move_mcnemars_p_value(differ, more):
    agreeing = more[:, [0, 0]]
    assert mcnemar(*np.concatenate([differ, agreeing]).T)["p_value"] == mcnemar(*differ.T)["p_value"]


@some
@given(outcomes, st.integers(0, 99))
def test_the_bootstrap_of_the_two_swapped_is_mirrored_and_narrows_with_less_confidence(pair, seed):
    a, b = pair.T
    found, narrow = (paired_bootstrap(a, b, 500, confidence, seed) for confidence in (0.95, 0.5))
    assert found["low"] <= narrow["low"] <= narrow["high"] <= found["high"]
    assert paired_bootstrap(b, a, 500, 0.95, seed)["difference"] == -found["difference"]
    assert paired_bootstrap(a, a, 500, 0.95, seed) == {"difference": 0, "low": 0, "high": 0}


@some
@given(outcomes, st.integers(1, 5), st.integers(0, 99))
def test_the_classes_changes_weighted_by_their_images_are_the_whole_change(pair, classes, seed):
    a, b = pair.T
    labels = np.random.default_rng(seed).integers(0, classes, len(a))
    found = paired_bootstrap_by_class(a, b, labels, classes, resamples=50)
    changes = np.nan_to_num([each["difference"] for each in found])
    assert changes @ np.bincount(labels, minlength=classes) / len(a) == pytest.approx(b.mean() - a.mean())
    assert all(np.isnan(each["low"]) or each["low"] <= each["high"] for each in found)


@some
@given(accuracies, accuracies)
def test_the_interval_over_seeds_holds_the_difference_and_is_mirrored_by_a_swap(a, b):
    found, swapped = seed_interval(a, b), seed_interval(b, a)
    assert found["low"] - 1e-12 <= found["difference"] <= found["high"] + 1e-12 and 0 <= found["p_value"] <= 1
    assert swapped["difference"] == pytest.approx(-found["difference"], abs=1e-12)
    assert (swapped["low"], swapped["high"]) == pytest.approx((-found["high"], -found["low"]), abs=1e-9)
    assert min(a) - 1e-12 <= spread(a)["mean"] <= max(a) + 1e-12 and spread(a)["std"] >= 0


@some
@given(
    st.integers(0, 500),
    st.integers(1, 300),
    st.sampled_from(["constant", "cosine"]),
    st.floats(0, 0.99),
    st.floats(1e-6, 10),
)
def test_a_learning_rate_climbs_to_its_peak_and_falls_without_a_jump(first, steps, schedule, warmup, peak):
    rates = Schedule({"any": peak}, first, first + steps, schedule, warmup)
    seen = np.array([rates.at(step)["any"] for step in range(first, first + steps + 1)]) / peak
    assert (seen[:-1] > 0).all() and (seen >= 0).all() and (seen <= 1 + 1e-9).all()
    # of a warm-up that ends between two steps the peak lies there too
    assert seen.max() >= 1 - 1 / (1 + warmup * steps) - 2.5 / steps / (1 - warmup)
    top = int(seen.argmax())
    assert (np.diff(seen[: top + 1]) >= -1e-12).all() and (np.diff(seen[top:]) <= 1e-12).all()
    steepest = max(1 / (warmup * steps + 1), np.pi / 2 / steps / (1 - warmup))
    assert abs(np.diff(seen)).max() <= steepest + 1e-9
    assert rates.at(first + steps + 1000)["any"] == pytest.approx(seen[-1] * peak)
