"""What training logs, and which way is better. Imports nothing."""

import re

METRICS = ("train/loss", "train/acc", "val/loss", "val/acc", "val/macro_f1", "val/balanced_acc")


def mode_of(metric: str) -> str | None:
    """Whether lower or higher is better, by a metric's name: "min", "max", or None if the name does not tell."""
    words = set(re.split(r"[^a-z0-9]+", metric.lower()))
    if words & {"loss", "error", "ece", "nll", "brier"}:
        return "min"
    return "max" if words & {"acc", "accuracy", "f1", "auroc", "precision", "recall"} else None
