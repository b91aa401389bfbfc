"""`cifar10.report.calibration` against hand computation, torchmetrics, scikit-learn and solved problems."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from cifar10.report.calibration import (
    TEMPERATURES,
    calibration,
    coverage_curve,
    coverage_summary,
    fit_temperature,
    reliability_bins,
)
from cifar10.report.metrics import classification_metrics

# probabilities of four images; the two most confident predictions are right, the other two wrong
HAND = np.log([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.1, 0.2, 0.7]])
HAND_LABELS = np.array([1, 0, 2, 2])


def drawn(seed: int, n: int = 2_000, classes: int = 10, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that follow their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * scale
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def torchmetrics_ece(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    probabilities = torch.tensor(np.asarray(logits, dtype=np.float64)).softmax(dim=1)
    return multiclass_calibration_error(
        probabilities, torch.tensor(labels), num_classes=logits.shape[1], n_bins=bins, norm="l1"
    ).item()


@pytest.mark.parametrize("stretch", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("seed", "classes", "bins"), [(0, 10, 15), (1, 10, 10), (2, 3, 15), (3, 2, 7), (4, 100, 20)])
def test_the_ece_is_torchmetrics(seed, classes, bins, stretch):
    logits, labels = drawn(seed, classes=classes, scale=1.5)
    expected = torchmetrics_ece(stretch * logits, labels, bins)
    assert calibration(stretch * logits, labels, bins=bins)["ece"] == pytest.approx(expected, abs=2e-6)  # float32 there
    assert calibration(logits, labels, temperature=1 / stretch, bins=bins)["ece"] == pytest.approx(expected, abs=2e-6)


def test_a_confidence_on_an_edge_belongs_to_the_bin_above_as_in_torchmetrics():
    halves, quarters = [0, 0, -1e4, -1e4], [0, 0, 0, 0]  # 0.5 and 0.25 exactly
    logits = np.array([halves, quarters, *np.log([[0.6, 0.2, 0.1, 0.1], [0.3, 0.3, 0.2, 0.2], [0.8, 0.1, 0.05, 0.05]])])
    labels = np.array([1, 1, 0, 0, 0])  # wrong on the edges, right elsewhere
    assert reliability_bins(logits, labels, bins=4)["count"].tolist() == [0, 2, 2, 1]
    ece = calibration(logits, labels, bins=4)["ece"]
    assert ece == pytest.approx((abs(-0.25 + 0.7) + abs(-0.5 + 0.4) + 0.2) / 5)
    assert ece == pytest.approx(torchmetrics_ece(logits, labels, 4), abs=1e-6)


def test_a_confidence_of_one_belongs_to_the_last_bin():
    certain, sure = [1_000.0, 0.0], [math.log(9), 0.0]
    found = reliability_bins(np.array([certain, sure]), np.array([1, 0]), bins=5)
    assert found["count"].tolist() == [0, 0, 0, 0, 2]
    assert found["confidence"][-1] == pytest.approx(0.95) and found["acc"][-1] == 0.5
    # one of the two is right at a mean confidence of 0.95
    assert calibration(np.array([certain, sure]), np.array([1, 0]), bins=5)["ece"] == pytest.approx(0.45)


def test_a_small_case_agrees_with_hand_computation():
    bins = reliability_bins(HAND, HAND_LABELS, bins=2)
    assert bins["edges"].tolist() == [0, 0.5, 1]
    bins = reliability_bins(HAND, HAND_LABELS, bins=3)  # 0.5 and 0.6 in [1/3, 2/3), 0.7 and 0.8 in [2/3, 1]
    assert bins["count"].tolist() == [0, 2, 2]
    assert np.isnan([bins["confidence"][0], bins["acc"][0]]).all()
    assert bins["confidence"][1:] == pytest.approx([0.55, 0.75])
    assert bins["acc"][1:].tolist() == [0, 1]
    found = calibration(HAND, HAND_LABELS, bins=3)
    assert found["ece"] == pytest.approx((2 * 0.55 + 2 * 0.25) / 4)
    squares = [0.25 + 0.49 + 0.04, 0.04 + 0.01 + 0.01, 0.01 + 0.36 + 0.49, 0.01 + 0.04 + 0.09]
    assert found["brier"] == pytest.approx(sum(squares) / 4)
    assert found["loss"] == pytest.approx(-math.log(0.3 * 0.8 * 0.3 * 0.7) / 4)


def test_the_temperature_divides_the_logits():
    # squared and normalised, 0.8 0.1 0.1 becomes 64 1 1 out of 66
    found = calibration(HAND[[1]], HAND_LABELS[[1]], temperature=0.5)
    assert found["loss"] == pytest.approx(-math.log(64 / 66))
    assert found["brier"] == pytest.approx((2**2 + 1 + 1) / 66**2)
    assert found["ece"] == pytest.approx(2 / 66)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_brier_score_sums_over_classes_each_ones_binary_score(classes):
    logits, labels = drawn(0, 300, classes)
    p = torch.tensor(logits).softmax(dim=1).numpy()
    # scikit-learn's own multiclass score is younger than 1.5
    expected = sum(brier_score_loss(labels == label, p[:, label]) for label in range(classes))
    assert calibration(logits, labels)["brier"] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_loss_is_that_of_metrics_json_whatever_the_logits_dtype(dtype):
    logits, labels = drawn(1, scale=8)
    logits = logits.astype(dtype)
    expected = classification_metrics(logits, labels, range(10))["loss"]
    assert calibration(logits, labels)["loss"] == pytest.approx(expected, rel=1e-12)


def test_a_perfect_and_a_perfectly_wrong_classifier_reach_the_ends_of_the_scales():
    logits = 1e4 * np.eye(3)
    assert calibration(logits, np.arange(3)) == {"ece": 0.0, "brier": 0.0, "loss": 0.0}
    assert calibration(logits, np.array([1, 2, 0])) == {"ece": 1.0, "brier": 2.0, "loss": 1e4}


@pytest.mark.parametrize(("share", "gap"), [(0.75, 2.0), (0.6, 1.0), (0.9, 0.5), (0.99, 8.0)])
def test_the_temperature_of_one_repeated_image_makes_its_probability_the_share_of_its_label(share, gap):
    # logits (gap, 0) and a share q of labels 0: the optimum has sigmoid(gap / T) = q
    labels = (np.arange(100) >= round(100 * share)).astype(int)
    expected = gap / math.log(share / (1 - share))
    assert fit_temperature(np.tile([gap, 0.0], (100, 1)), labels) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("k", [0.2, 1.0, 1.7, 10.0])
def test_logits_k_times_too_large_have_the_temperature_k(k):
    # images whose labels occur exactly as often as their probabilities say, so k is the optimum and not near it
    kinds = np.array([[1, 2, 5], [6, 1, 1], [3, 3, 2]])
    logits = np.repeat(np.log(kinds / 8), 8, axis=0)
    labels = np.concatenate([np.repeat(np.arange(3), kind) for kind in kinds])
    assert fit_temperature(k * logits, labels) == pytest.approx(k, rel=1e-4)
    # and labels drawn from the probabilities
    assert fit_temperature(k * drawn(0, 5_000)[0], drawn(0, 5_000)[1]) == pytest.approx(k, rel=0.05)


def test_the_fitted_temperature_has_the_least_loss_of_a_grid_and_leaves_predictions_as_they_are():
    logits, labels = drawn(3)
    logits = 2.5 * logits
    temperature = fit_temperature(logits, labels)
    fitted, grid = calibration(logits, labels, temperature), np.geomspace(*TEMPERATURES, 60)
    assert fitted["loss"] <= min(calibration(logits, labels, t)["loss"] for t in grid)
    before, after = calibration(logits, labels), reliability_bins(logits, labels, temperature=temperature)
    assert fitted["ece"] < before["ece"] / 3 and fitted["brier"] < before["brier"]
    assert np.nansum(after["acc"] * after["count"]) == (logits.argmax(axis=1) == labels).sum()


@pytest.mark.parametrize(
    ("logits", "labels", "temperature"),
    [
        (np.eye(3), [0, 1, 2], TEMPERATURES[0]),  # always right: the surer, the better
        (30 * np.eye(3), [0, 1, 2], TEMPERATURES[0]),
        (np.eye(3), [1, 2, 0], TEMPERATURES[1]),  # always wrong: the less sure, the better
        (np.zeros((3, 3)), [0, 1, 2], 1.0),  # nothing to scale
        (1e4 * np.eye(3), [0, 1, 2], 1.0),  # a loss of 0 as it is
    ],
)
def test_without_an_optimum_the_temperature_is_a_bound_or_none(logits, labels, temperature):
    assert fit_temperature(logits, np.array(labels)) == temperature


def test_the_coverage_curve_agrees_with_hand_computation():
    coverage, acc = coverage_curve(HAND, HAND_LABELS)  # by confidence: right, right, wrong, wrong
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert acc.tolist() == [1, 1, 2 / 3, 0.5]
    assert coverage_summary(HAND, HAND_LABELS) == {
        "acc_at": {"0.5": 1.0, "0.8": 2 / 3, "0.9": 0.5, "1.0": 0.5},
        "coverage_at_acc": {"0.95": 0.5, "0.99": 0.5},
        "aurc": pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4),
    }


def test_an_accuracy_reached_again_after_an_early_mistake_counts():
    logits = np.column_stack([np.linspace(9, 1, 100), np.zeros(100)])
    labels = np.zeros(100, int)
    labels[[0, 60]] = 1  # 19 of the first 20 are right, 0.95 exactly; 59 of the first 60; 98 of 100
    summary = coverage_summary(logits, labels)
    assert summary["coverage_at_acc"] == {"0.95": 1.0, "0.99": 0.0}
    labels[20:] = 1
    assert coverage_summary(logits, labels)["coverage_at_acc"] == {"0.95": 0.2, "0.99": 0.0}


def test_images_of_one_confidence_stay_in_their_order():
    acc = coverage_curve(np.zeros((4, 2)), np.array([1, 0, 0, 1]))[1]
    assert acc.tolist() == [0, 1 / 2, 2 / 3, 1 / 2]
    labels = np.random.default_rng(0).integers(0, 2, 200)
    acc = coverage_curve(np.tile([[1.0, 0.0], [2.0, 0.0]], (100, 1)), labels)[1]  # the odd images come first
    correct = np.concatenate([labels[1::2], labels[::2]]) == 0
    assert acc.tolist() == [correct[:k].mean() for k in range(1, 201)]


def test_a_single_image_has_every_figure():
    assert coverage_summary(np.eye(2)[[0]], np.array([0])) == {
        "acc_at": {"0.5": 1.0, "0.8": 1.0, "0.9": 1.0, "1.0": 1.0},
        "coverage_at_acc": {"0.95": 1.0, "0.99": 1.0},
        "aurc": 0.0,
    }


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6), st.floats(0.1, 3))
@settings(max_examples=50)
def test_figures_keep_their_bounds_and_do_not_depend_on_the_order_of_images(seed, n, classes, scale):
    rng = np.random.default_rng(seed)
    logits, labels, order = rng.normal(size=(n, classes)) * scale, rng.integers(0, classes, n), rng.permutation(n)
    found = calibration(logits, labels)
    assert 0 <= found["ece"] <= 1 and 0 <= found["brier"] <= 2 and found["loss"] > 0
    assert calibration(logits[order], labels[order]) == pytest.approx(found)
    bins = reliability_bins(logits, labels)
    filled = bins["count"] > 0
    assert bins["count"].sum() == n and (filled == ~np.isnan(bins["acc"])).all()
    assert (bins["edges"][:-1] - 1e-12 <= bins["confidence"])[filled].all()
    assert (bins["confidence"] <= bins["edges"][1:] + 1e-12)[filled].all()
    coverage, acc = coverage_curve(logits, labels)
    assert coverage[-1] == 1 and acc[-1] == (logits.argmax(axis=1) == labels).mean()
    assert coverage_curve(logits[order], labels[order])[1].tolist() == acc.tolist()
    assert TEMPERATURES[0] <= fit_temperature(logits, labels) <= TEMPERATURES[1]


def test_the_inputs_stay_as_they_were():
    logits, labels = drawn(0, 50)
    before = logits.copy(), labels.copy()
    calibration(logits, labels, 2.0), fit_temperature(logits, labels), coverage_summary(logits, labels)
    assert np.array_equal(logits, before[0]) and np.array_equal(labels, before[1])


@pytest.mark.parametrize("function", [reliability_bins, calibration, fit_temperature, coverage_curve, coverage_summary])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), r"\(3, 2\) and \(4,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "N > 0"),
        (np.zeros(3), np.zeros(3, int), r"must be \(N, C\)"),
        (np.zeros((3, 2)), np.zeros(3), "integers from 0 to 1"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "integers from 0 to 1"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), "integers from 0 to 1"),
        (np.array([[0, np.nan]]), np.array([0]), "NaN or infinite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(function, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        function(logits, labels)


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature=.*: must be above 0"):
        calibration(HAND, HAND_LABELS, temperature)
