"""How certain a difference between two classifiers is, from the images that each got right and from their seeds.

Two kinds of uncertainty are kept apart: other test images (intervals over images) and other seeds (over runs).
Everywhere the difference is b minus a.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from cifar10.report.numbers import interval, points

CHUNK = 1_000_000  # counts drawn at once by the bootstrap: 8 MB


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of an accuracy of `correct` out of `n` images, as fractions (Wilson 1927)."""
    interval = stats.binomtest(int(correct), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, int | float]:
    """Test whether two classifiers err equally often on the same images (McNemar 1947; exact, two-sided).

    correct_a, correct_b: (N,), booleans or 0 and 1. The result counts images: `both` right, `only_a`, `only_b`,
    `neither`; `p_value` is 1 where no image tells the two apart. Raises ValueError where the two do not match.
    """
    a, b = _booleans(correct_a, correct_b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    return {"both": both, "only_a": only_a, "only_b": only_b, "neither": neither, "p_value": p_value}


def only_one_right(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices, ascending, of the images that only a gets right, and of those that only b does."""
    a, b = _booleans(correct_a, correct_b)
    return np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)


def paired_bootstrap(
    scores_a: np.ndarray, scores_b: np.ndarray, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> dict[str, float]:
    """Percentile interval of mean(b) - mean(a) over resampled images (Efron & Tibshirani 1993, section 13.3).

    scores_a, scores_b: (N,), of the same images in the same order, in [0, 1]: whether a run is right, or the share of
    a group's runs that are. Returns `difference`, `low` and `high`, fractions; the trained networks stay as they are.
    """
    a, b = _pair(scores_a, scores_b)
    difference = b.astype(np.float64) - a
    if not np.isfinite(difference).all():
        raise ValueError("scores are NaN or infinite")
    # shares of a few runs differ by few distinct values, and how often a resample draws each one is multinomial
    values, counts = np.unique(difference, return_counts=True)
    n, step, rng = len(difference), max(1, CHUNK // len(values)), np.random.default_rng(seed)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    means = np.concatenate([rng.multinomial(n, counts / n, size) @ values for size in sizes]) / n
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # a limit that is 0 must not come out as 1e-19: it would exclude 0
    return {"difference": _tidy(difference.mean()), "low": _tidy(low), "high": _tidy(high)}


def paired_bootstrap_by_class(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, float]]:
    """`paired_bootstrap` of each class's images: the change in recall; NaN for a class without images.

    labels: (N,), ints in [0, num_classes). Each interval stands alone: of ten at 95 %, at least one misses in
    two comparisons out of five.
    """
    a, b = _pair(scores_a, scores_b)
    labels = np.asarray(labels)
    if labels.shape != a.shape:
        raise ValueError(f"there are {labels.shape} labels for {a.shape} scores")
    nothing: dict[str, float] = dict.fromkeys(("difference", "low", "high"), float("nan"))
    members = [labels == label for label in range(num_classes)]
    return [paired_bootstrap(a[m], b[m], resamples, confidence, seed) if m.any() else dict(nothing) for m in members]


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """`mean`, sample standard deviation `std` (n - 1 in the denominator; None for a single value) and `n`."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"values must be a list of one or more numbers, but their shape is {found.shape}")
    std = float(found.std(ddof=1)) if len(found) > 1 else None
    return {"mean": float(found.mean()), "std": std, "n": len(found)}


def seed_interval(
    values_a: Sequence[float], values_b: Sequence[float], confidence: float = 0.95
) -> dict[str, float] | None:
    """Interval of mean(b) - mean(a) over training runs that differ in their seed (Welch 1947).

    One value per run, a's and b's unpaired. Returns `difference`, `low`, `high` and `p_value`; None where either has
    fewer than two values. Where neither varies the interval is the difference itself, the limit for a vanishing
    spread, and p is 0, or 1 if there is no difference.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (values_a, values_b))
    if min(len(a), len(b)) < 2:
        return None
    difference = float(b.mean() - a.mean())
    if not np.ptp(a) and not np.ptp(b):
        difference = float(b[0] - a[0])
        return {"difference": difference, "low": difference, "high": difference, "p_value": float(difference == 0)}
    with warnings.catch_warnings():
        # scipy warns of runs that all end alike, but Welch's formula needs only one side to vary
        warnings.simplefilter("ignore", RuntimeWarning)
        test: Any = stats.ttest_ind(b, a, equal_var=False)
    low, high = test.confidence_interval(confidence)
    return {"difference": difference, "low": float(low), "high": float(high), "p_value": float(test.pvalue)}


def verdict(bootstrap: dict[str, float], seeds: dict[str, float] | None, name_a: str, name_b: str) -> str:
    """Say in one sentence which of the two kinds of uncertainty the difference of b from a survives.

    bootstrap: from `paired_bootstrap`; seeds: from `seed_interval`; both at 95 %. An interval counts if it lies wholly
    on the side of bootstrap's difference, without 0.
    """
    difference = bootstrap["difference"]
    sign = -1 if difference < 0 else 1
    found = [one for one in (bootstrap, seeds) if one]
    survives = tuple(min(sign * one["low"], sign * one["high"]) > 0 for one in found)
    printed = [f"(95 % interval {interval(one['low'], one['high'], points)})" for one in found]
    images = f"other test images {printed[0]}"
    others = f"other seeds {printed[-1]}"
    unknown = "whether it survives other seeds is unknown: fewer than two seeds of one or of both"
    networks, nothing = "no claim can be made beyond these trained networks", "no claim can be made"
    findings = {
        (True, True): f"survives both kinds of uncertainty: {images} and {others}",
        (True, False): f"survives {images} but not {others}, so {networks}",
        (False, True): f"survives {others} but not {images}, so {nothing} beyond these test images",
        (False, False): f"survives neither {images} nor {others}, so {nothing}",
        (True,): f"survives {images}; {unknown}, so {networks}",
        (False,): f"does not survive {images}; {unknown}, so {nothing}",
    }
    size = points(abs(difference)).removeprefix("+")
    lead = f"{name_b} scored {size} points {'less' if sign < 0 else 'more'} than {name_a}"
    if difference == 0:
        lead = f"{name_b} and {name_a} scored the same"
    elif survives == (True, True):
        lead = f"{name_b} is {'worse' if sign < 0 else 'better'} than {name_a} by {size} points"
    return f"{lead}; the difference {findings[survives]}."


def _tidy(value: float) -> float:
    return float(np.round(value, 12)) + 0.0


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"a and b must both be (N,) with N > 0, but they are {a.shape} and {b.shape}")
    return a, b


def _booleans(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _pair(a, b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("a and b must say right or wrong for each image: booleans, or 0 and 1")
    return a.astype(bool), b.astype(bool)
