"""Accuracy, loss, F1 and confusion of one split, from its logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support


def classification_metrics(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Score one split; the result holds plain Python values, ready for JSON.

    logits: (N, C), finite; labels: (N,), ints in [0, C). The largest logit is the prediction, the first one of a tie.
    `acc` is a fraction and `loss` the mean cross-entropy in nats; `macro_f1` is the plain mean over all C classes.
    Every class has its entry, also one without images: a ratio with nothing to divide by is then 0.
    `confusion_matrix` has true classes as rows and predicted ones as columns.
    Raises ValueError where the three do not fit together.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check(logits, labels, class_names)
    predictions = logits.argmax(axis=1)
    classes = np.arange(len(class_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=classes, average=None, zero_division=0
    )
    return {
        "n": len(labels),
        "acc": float((predictions == labels).mean()),
        "loss": cross_entropy(logits, labels),
        "macro_f1": float(f1.mean()),
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


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Plain mean of F1 over all C classes; 0 for a class without images and predictions."""
    classes = np.arange(logits.shape[1])
    return float(f1_score(labels, logits.argmax(axis=1), labels=classes, average="macro", zero_division=0))


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


def format_per_class(metrics: dict[str, Any]) -> str:
    """Lay out the result of `classification_metrics` like scikit-learn's `classification_report`."""
    rows = metrics["per_class"]
    columns = ("precision", "recall", "f1")
    width = max(len("macro avg"), *(len(row["class"]) for row in rows))
    averages = [sum(row[column] for row in rows) / len(rows) for column in columns]
    lines = [f"{'':>{width}}  {'precision':>9} {'recall':>9} {'f1-score':>9} {'support':>9}", ""]
    lines += [_line(row["class"], width, [row[column] for column in columns], row["support"]) for row in rows]
    lines += ["", _line("accuracy", width, [None, None, metrics["acc"]], metrics["n"])]
    lines += [_line("macro avg", width, averages, metrics["n"])]
    return "\n".join(lines)


def _line(name: str, width: int, ratios: Sequence[float | None], support: int) -> str:
    cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    return f"{name:>{width}}  " + " ".join(f"{cell:>9}" for cell in [*cells, str(support)])


def _check(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels):
        raise ValueError(f"logits must be (N, C) and labels (N,), but they are {logits.shape} and {labels.shape}")
    if not len(labels):
        raise ValueError("there is nothing to score: logits and labels are empty")
    if logits.shape[1] != len(class_names):
        raise ValueError(f"logits have {logits.shape[1]} classes, but there are {len(class_names)} class names")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, but they are {labels.dtype}")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, outside 0 to {len(class_names) - 1}")
    if not np.isfinite(logits).all():
        count = int((~np.isfinite(logits)).any(axis=1).sum())
        raise ValueError(f"logits of {count} of {len(logits)} images are NaN or infinite")
