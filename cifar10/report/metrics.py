"""Accuracy, loss, F1 and confusion of one split, from its logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from scipy.special import logsumexp
from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support

from cifar10.report.numbers import printable

ABSENT: Any = 0  # for what has no images; scikit-learn declares this argument as text


def classification_metrics(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Score one split; the result holds plain Python values, ready for JSON.

    logits: (N, C), finite; labels: (N,), ints in [0, C). The largest logit is the prediction, the first one of a tie.
    `acc` is a fraction and `loss` the mean cross-entropy in nats; `macro_f1` and `balanced_acc` are plain means of F1
    and recall over the classes that have images. Every class has its entry: NaN where it has no images, and 0 for the
    precision of one that is never predicted.
    `confusion_matrix` has true classes as rows and predicted ones as columns.
    Raises ValueError where the three do not match.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    check(logits, labels)
    if logits.shape[1] != len(class_names):
        raise ValueError(f"class_names: there are {len(class_names)}, but logits of {logits.shape[1]} classes")
    predictions = logits.argmax(axis=1)
    classes = np.arange(len(class_names))
    *ratios, support = precision_recall_fscore_support(
        labels, predictions, labels=classes, average=None, zero_division=ABSENT
    )
    support = np.asarray(support)
    precision, recall, f1 = (np.where(support > 0, ratio, np.nan) for ratio in ratios)
    return {
        "n": len(labels),
        "acc": float((predictions == labels).mean()),
        "loss": cross_entropy(logits, labels),
        "macro_f1": float(np.nanmean(f1)),
        "balanced_acc": float(np.nanmean(recall)),
        "per_class": [
            {"class": str(name), "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(class_names, precision, recall, f1, support, strict=True)
        ],
        "confusion_matrix": confusion_matrix(labels, predictions, labels=classes).tolist(),
    }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean in nats, computed in float64: exponentials of half-precision logits overflow from 12 on."""
    logits = np.asarray(logits, dtype=np.float64)
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def most_confused(matrix: Sequence[Sequence[int]], class_names: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """The most frequent confusions, in order: `true`, `predicted`, their `count`, and its `share` of the class."""
    counts = np.array(matrix)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = [np.unravel_index(cell, counts.shape) for cell in np.argsort(-counts, axis=None, kind="stable")[:most]]
    return [
        {
            "true": str(class_names[true]),
            "predicted": str(class_names[predicted]),
            "count": int(counts[true, predicted]),
            "share": float(counts[true, predicted] / totals[true]),
        }
        for true, predicted in order
        if counts[true, predicted]
    ]


def cluster(matrix: np.ndarray) -> np.ndarray:
    """Linkage of the classes by how often each is taken for the other (average linkage, optimal leaf order)."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0)
    return linkage(squareform(distances, checks=False), "average", optimal_ordering=True)


def format_per_class(metrics: dict[str, Any], longest: int = 60) -> str:
    """The result of `classification_metrics` as scikit-learn's `classification_report`; longer names are cut.

    Classes without images are left out, and so are in no mean; where one is predicted, accuracy is called micro avg.
    """
    counts = np.array(metrics["confusion_matrix"])
    classes = [number for number, row in enumerate(metrics["per_class"]) if row["support"]]
    names = [printable(metrics["per_class"][number]["class"]) for number in classes]
    names = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]
    labels, predictions = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    report = classification_report(labels, predictions, labels=classes, target_names=names, zero_division=ABSENT)
    return str(report).rstrip()


def check(logits: np.ndarray, labels: np.ndarray) -> None:
    """ValueError unless logits are (N, C) and finite, and labels (N,), ints in [0, C), N > 0."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"logits, labels: must be (N, C) and (N,), N > 0, not {logits.shape} and {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels: must be integers from 0 to {logits.shape[1] - 1}")
    if broken := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise ValueError(f"logits: those of {broken} of {len(logits)} images are NaN or infinite")
