"""`cifar10.report.statistics` against hand computation, published tables, scipy and the normal approximation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cifar10.report.statistics import (
    mcnemar,
    only_one_right,
    paired_bootstrap,
    paired_bootstrap_by_class,
    seed_interval,
    spread,
    verdict,
    wilson_interval,
)

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(np.array)


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_intervals_newcombe_published(correct, n, low, high):  # Stat. Med. 17, 1998, table I
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=30)
def test_wilson_follows_its_formula_and_mirrors_errors(case):
    (correct, n), z = case, 1.6448536269514722
    p = correct / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = wilson_interval(correct, n, confidence=0.9)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-12)
    assert wilson_interval(n - correct, n, confidence=0.9) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (1, 8, 2 * (1 + 9) / 2**9),  # 0 or 1 heads in 9 tosses, and as many tails
        (0, 5, 2 / 2**5),
        (3, 3, 1.0),
        (0, 1, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_agrees_with_hand_computation(only_a, only_b, p_value):
    a, b = outcomes(20, only_a, only_b, 4)
    expected = {"both": 20, "only_a": only_a, "only_b": only_b, "neither": 4, "p_value": pytest.approx(p_value)}
    assert mcnemar(a, b) == expected
    assert mcnemar(a.astype(float), b.astype(int)) == expected


def test_mcnemar_is_the_exact_binomial_test_at_the_size_of_a_test_set():
    a, b = outcomes(6_900, 190, 250, 2_660)
    assert mcnemar(a, b)["p_value"] == pytest.approx(2 * stats.binom.cdf(190, 440, 0.5), rel=1e-9)


@given(pairs)
@settings(max_examples=50)
def test_mcnemar_is_symmetric_and_its_counts_are_the_images(pair):
    a, b = pair.T
    found, swapped = mcnemar(a, b), mcnemar(b, a)
    assert found["both"] + found["only_a"] + found["only_b"] + found["neither"] == len(a)
    assert found["p_value"] == swapped["p_value"] and 0 < found["p_value"] <= 1
    assert (found["only_a"], found["only_b"]) == (swapped["only_b"], swapped["only_a"])
    only_a, only_b = only_one_right(a, b)
    assert (len(only_a), len(only_b)) == (found["only_a"], found["only_b"])


def test_images_that_only_one_gets_right_are_named_in_order():
    only_a, only_b = only_one_right([1, 0, 1, 0, 1], [0, 1, 1, 0, 0])
    assert only_a.tolist() == [0, 4] and only_b.tolist() == [1]


def test_the_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.binomial(3, 0.6, 80) / 3, rng.binomial(2, 0.7, 80) / 2
    found = paired_bootstrap(a, b, resamples=40_000)
    reference = stats.bootstrap(
        (a, b),
        lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis),
        n_resamples=40_000,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found["difference"] == pytest.approx(b.mean() - a.mean(), abs=1e-12)
    # the standard error of such a quantile is about 0.0007 here
    assert (found["low"], found["high"]) == pytest.approx((reference.low, reference.high), abs=0.004)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_bootstrap_is_close_to_the_normal_approximation_for_a_test_set(confidence):
    a, b = outcomes(6_900, 190, 2_590, 320)
    found = paired_bootstrap(a, b, confidence=confidence)
    half = stats.norm.ppf((1 + confidence) / 2) * (b.astype(float) - a).std() / math.sqrt(len(a))
    assert found["difference"] == 0.24
    assert (found["low"], found["high"]) == pytest.approx((0.24 - half, 0.24 + half), abs=half / 20)


def test_pairing_narrows_the_bootstrap_to_the_images_that_differ():
    a, b = outcomes(900, 0, 5, 95)
    paired = paired_bootstrap(a, b)
    shuffled = paired_bootstrap(a, np.random.default_rng(0).permutation(b))
    assert 3 * (paired["high"] - paired["low"]) < shuffled["high"] - shuffled["low"]


def test_many_distinct_scores_are_resampled_in_parts_with_the_same_meaning(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.random(400), rng.random(400)
    monkeypatch.setattr("cifar10.report.statistics.CHUNK", 40_000)  # 100 resamples at once
    found = paired_bootstrap(a, b, resamples=4_050)
    half = 1.96 * (b - a).std() / 20
    assert (found["low"], found["high"]) == pytest.approx(((b - a).mean() - half, (b - a).mean() + half), abs=half / 10)


def test_the_bootstrap_is_decided_by_its_seed_and_its_number_of_resamples():
    a, b = outcomes(50, 10, 20, 20)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    found = [paired_bootstrap(a, b, resamples=99, seed=seed) for seed in range(5)]
    assert len({result["low"] for result in found}) > 1
    assert len({result["difference"] for result in found}) == 1
    once = paired_bootstrap(a, b, resamples=1)
    assert once["low"] == once["high"]


@given(pairs, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_images_does_not_matter_to_the_bootstrap_and_its_limits_hold_the_difference(pair, random):
    order = random.sample(range(len(pair)), len(pair))
    found = paired_bootstrap(*pair.T, resamples=1_000)
    assert found == paired_bootstrap(*pair[order].T, resamples=1_000)
    assert -1 <= found["low"] <= found["difference"] <= found["high"] <= 1


def test_a_limit_that_is_zero_is_exactly_zero():
    nothing = {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert paired_bootstrap([0.7, 0.2], [0.7, 0.2]) == nothing
    assert paired_bootstrap([0.3] * 7, [0.1 + 0.2] * 7) == nothing  # 5e-17 apart


def test_each_class_has_the_bootstrap_of_its_own_images():
    rng = np.random.default_rng(0)
    a, b, labels = rng.random(300) < 0.6, rng.random(300) < 0.8, rng.choice([0, 2, 3], 300)
    found = paired_bootstrap_by_class(a, b, labels, 4, resamples=500, confidence=0.9, seed=7)
    assert len(found) == 4
    for label in (0, 2, 3):
        mine = labels == label
        assert found[label] == paired_bootstrap(a[mine], b[mine], resamples=500, confidence=0.9, seed=7)
        assert found[label]["difference"] == pytest.approx(b[mine].mean() - a[mine].mean())
    assert all(math.isnan(value) for value in found[1].values()) and found[1].keys() == found[0].keys()


def test_spread_is_the_sample_standard_deviation():
    assert spread([0.70, 0.71, 0.72]) == {"mean": pytest.approx(0.71), "std": pytest.approx(0.01), "n": 3}
    assert spread([0.7]) == {"mean": 0.7, "std": None, "n": 1}


def test_welch_agrees_with_hand_computation():
    # variances 1 and 4 over 3 values each: standard error sqrt(5 / 3), (5/3)^2 / (1/18 + 16/18) = 50/17 degrees
    found = seed_interval([1.0, 2.0, 3.0], [5.0, 7.0, 9.0])
    half = stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert found["difference"] == 5.0
    assert (found["low"], found["high"]) == pytest.approx((5 - half, 5 + half))
    assert found["p_value"] == pytest.approx(2 * stats.t.sf(5 / math.sqrt(5 / 3), 50 / 17))


def test_welch_is_scipys_with_b_minus_a():
    a, b = [0.6998, 0.7126, 0.7097, 0.7006, 0.7170], [0.95, 0.9564, 0.9486]
    reference = stats.ttest_ind(b, a, equal_var=False)
    found = seed_interval(a, b, confidence=0.9)
    assert (found["low"], found["high"]) == pytest.approx(tuple(reference.confidence_interval(0.9)))
    assert found["p_value"] == pytest.approx(reference.pvalue)
    back = seed_interval(b, a, confidence=0.9)
    assert (back["low"], back["high"]) == pytest.approx((-found["high"], -found["low"]))


@pytest.mark.parametrize(("a", "b"), [([0.7], [0.9, 0.91]), ([0.7, 0.71], [0.9]), ([], [0.9, 0.91])])
def test_without_two_seeds_of_each_there_is_no_interval(a, b):
    assert seed_interval(a, b) is None


@pytest.mark.filterwarnings("error")
def test_runs_that_do_not_vary_leave_the_difference_itself():
    assert seed_interval([0.5, 0.5], [0.75] * 3) == {"difference": 0.25, "low": 0.25, "high": 0.25, "p_value": 0.0}
    assert seed_interval([0.1] * 3, [0.1] * 2) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}
    # one side's spread is enough for an interval: 5/3 -> sqrt(1/3), 2 degrees
    found = seed_interval([5.0, 5.0], [1.0, 2.0, 3.0])
    assert found["high"] == pytest.approx(-3 + stats.t.ppf(0.975, 2) * math.sqrt(1 / 3))


def interval(low: float, high: float, difference: float | None = None) -> dict[str, float]:
    return {"difference": (low + high) / 2 if difference is None else difference, "low": low, "high": high}


MINUS = "\N{MINUS SIGN}"
IMAGES, SEEDS = "other test images (95 % interval {})", "other seeds (95 % interval {})"
UNKNOWN = "whether it survives other seeds is unknown: fewer than two seeds of one or of both"


@pytest.mark.parametrize(
    ("bootstrap", "seeds", "sentence"),
    [
        (
            interval(0.218, 0.235, 0.226),
            interval(0.219, 0.234),
            "B is better than A by 22.60 points; the difference survives both kinds of uncertainty: "
            f"{IMAGES.format('+21.80 to +23.50')} and {SEEDS.format('+21.90 to +23.40')}.",
        ),
        (
            interval(-0.235, -0.218, -0.226),
            interval(-0.234, -0.219),
            "B is worse than A by 22.60 points; the difference survives both kinds of uncertainty: "
            f"{IMAGES.format('-23.50 to -21.80')} and {SEEDS.format('-23.40 to -21.90')}.",
        ),
        (
            interval(0.011, 0.031),
            interval(-0.02, 0.061),
            f"B scored 2.10 points more than A; the difference survives {IMAGES.format('+1.10 to +3.10')} "
            f"but not {SEEDS.format('-2.00 to +6.10')}, so no claim can be made beyond these trained networks.",
        ),
        (
            interval(-0.006, 0.002, -0.002),
            interval(-0.003, -0.001),
            f"B scored 0.20 points less than A; the difference survives {SEEDS.format('-0.30 to -0.10')} "
            f"but not {IMAGES.format('-0.60 to +0.20')}, so no claim can be made beyond these test images.",
        ),
        (
            interval(-0.004, 0.006),
            interval(-0.02, 0.022),
            f"B scored 0.10 points more than A; the difference survives neither {IMAGES.format('-0.40 to +0.60')} "
            f"nor {SEEDS.format('-2.00 to +2.20')}, so no claim can be made.",
        ),
        (
            interval(0.218, 0.235, 0.226),
            None,
            f"B scored 22.60 points more than A; the difference survives {IMAGES.format('+21.80 to +23.50')}; {UNKNOWN}"
            ", so no claim can be made beyond these trained networks.",
        ),
        (
            interval(-0.02, 0.04),
            None,
            f"B scored 1.00 points more than A; the difference does not survive {IMAGES.format('-2.00 to +4.00')}; "
            f"{UNKNOWN}, so no claim can be made.",
        ),
        (
            interval(0.0, 0.0),
            interval(-0.01, 0.01),
            f"B and A scored the same; the difference survives neither {IMAGES.format('0.00 to 0.00')} "
            f"nor {SEEDS.format('-1.00 to +1.00')}, so no claim can be made.",
        ),
        (
            interval(0.0, 0.03, 0.015),  # a limit of 0 does not exclude 0
            interval(0.0003, 0.03),  # a limit near 0 is printed so that it does
            f"B scored 1.50 points more than A; the difference survives {SEEDS.format('+0.03 to +3.00')} "
            f"but not {IMAGES.format('0.00 to +3.00')}, so no claim can be made beyond these test images.",
        ),
        (
            interval(0.02, 0.04),  # seeds that point the other way do not support the difference
            interval(-0.04, -0.02),
            f"B scored 3.00 points more than A; the difference survives {IMAGES.format('+2.00 to +4.00')} "
            f"but not {SEEDS.format('-4.00 to -2.00')}, so no claim can be made beyond these trained networks.",
        ),
    ],
)
def test_the_verdict_compares_b_with_a_and_says_which_uncertainty_the_difference_survives(bootstrap, seeds, sentence):
    assert verdict(bootstrap, seeds, "A", "B") == sentence.replace("-", MINUS)


@pytest.mark.parametrize("compare", [mcnemar, only_one_right, paired_bootstrap])
@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[1, 0]], [[1, 0]])])
def test_scores_that_do_not_fit_together_are_refused(compare, a, b):
    with pytest.raises(ValueError, match=r"must both be \(N,\)"):
        compare(np.array(a), np.array(b))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar([1, 0.5], [1, 0]), "right or wrong for each image"),
        (lambda: paired_bootstrap([1, np.nan], [1, 0]), "NaN or infinite"),
        (lambda: paired_bootstrap_by_class([1, 0], [1, 0], [0, 1, 1], 2), "labels for"),
        (lambda: spread([]), "one or more numbers"),
        (lambda: wilson_interval(3, 2), "must not be greater"),
    ],
)
def test_inputs_without_a_meaning_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
