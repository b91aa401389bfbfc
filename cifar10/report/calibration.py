"""Whether a classifier knows when it is wrong: calibration, temperature scaling, accuracy where it is most confident.

The confidence of an image is its largest softmax probability, computed in float64. Everywhere logits are (N, C) and
labels (N,), ints in [0, C); ValueError where the two do not match.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from cifar10.report.metrics import check, cross_entropy

TEMPERATURES = (0.05, 20.0)  # twentyfold either way: a network that needs more has another problem


def reliability_bins(
    logits: np.ndarray, labels: np.ndarray, bins: int = 15, temperature: float = 1.0
) -> dict[str, np.ndarray]:
    """Confidence beside accuracy in equal-width bins of confidence (Guo et al. 2017, section 2).

    Returns `edges` (bins + 1,), and for each bin `count`, mean `confidence` and `acc`, NaN where it is empty. A bin
    includes its lower edge but not its upper one, except the last, which includes 1.
    """
    confidence, correct = _confidence(logits, labels, temperature)
    edges = np.linspace(0, 1, bins + 1)
    # torchmetrics' bins, but there a confidence that float32 rounds to 1 has one of its own, beyond the last
    index = (np.searchsorted(edges, confidence, side="right") - 1).clip(max=bins - 1)
    count = np.bincount(index, minlength=bins)
    totals = [np.bincount(index, weights=values, minlength=bins) for values in (confidence, correct)]
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in totals]
    return {"edges": edges, "count": count, "confidence": means[0], "acc": means[1]}


def calibration(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: int = 15) -> dict[str, float]:
    """Score the probabilities softmax(logits / temperature): `ece`, `brier` and `loss`, lower is better.

    `ece`: expected calibration error over `reliability_bins`, in [0, 1] (Guo et al. 2017, section 2). `brier`: squared
    error summed over the classes, in [0, 2] (Brier 1950). `loss`: mean cross-entropy in nats.
    """
    scaled = _scaled(logits, labels, temperature)
    bars = reliability_bins(logits, labels, bins, temperature)
    truth = np.eye(scaled.shape[1])[labels]
    return {
        "ece": float(np.nansum(bars["count"] * np.abs(bars["acc"] - bars["confidence"])) / len(scaled)),
        "brier": float(((softmax(scaled, axis=1) - truth) ** 2).sum(axis=1).mean()),
        "loss": cross_entropy(scaled, labels),
    }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of lowest mean cross-entropy of softmax(logits / temperature) (Guo et al. 2017, section 4.2).

    Fit it on validation images, never on the test images it will be judged on. It stays within `TEMPERATURES`: the
    lower end where every prediction is right, the upper one where even guessing is better; 1 where none beats 1.
    """

    def loss(temperature: float) -> float:
        return cross_entropy(_scaled(logits, labels, temperature), labels)

    # the loss is convex in 1 / temperature, so it has a single valley in the logarithm too
    found = minimize_scalar(
        lambda log_t: loss(np.exp(log_t)), bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6}
    )
    # the search comes close to the ends but never tries them
    return float(min((1.0, *TEMPERATURES, np.exp(found.x)), key=loss))


def coverage_curve(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy among the k most confident images against the coverage k / N, for k = 1 ... N (Geifman & El-Yaniv 2017).

    Returns coverage (N,), ascending, and accuracy (N,). Images of the same confidence stay in their order.
    """
    confidence, correct = _confidence(logits, labels, 1.0)
    k = np.arange(1, len(correct) + 1)
    return k / len(correct), np.cumsum(correct[np.argsort(-confidence, kind="stable")]) / k


def coverage_summary(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Points of `coverage_curve`, with their targets as keys: `acc_at` a coverage and `coverage_at_acc` an accuracy.

    The latter is the largest coverage with at least that accuracy, 0 if there is none: measured on these images, it
    guarantees nothing for others. `aurc`, the area under the risk-coverage curve, is the mean of 1 - accuracy over all
    coverages, lower is better.
    """
    coverage, acc = coverage_curve(logits, labels)
    n = len(acc)
    return {
        "acc_at": {str(share): float(acc[max(1, round(share * n)) - 1]) for share in (0.5, 0.8, 0.9, 1.0)},
        "coverage_at_acc": {str(goal): float(coverage[acc >= goal].max(initial=0)) for goal in (0.95, 0.99)},
        "aurc": float((1 - acc).mean()),
    }


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """Largest softmax probability of each image, (N,)."""
    return softmax(logits.astype(np.float64), axis=1).max(axis=1)


def _confidence(logits: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Largest probability and whether the prediction is right, (N,) each."""
    return confidence_of(_scaled(logits, labels, temperature)), np.argmax(logits, axis=1) == labels


def _scaled(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    logits, labels = np.asarray(logits), np.asarray(labels)
    check(logits, labels)
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    return logits.astype(np.float64) / temperature
