"""Runs scored and groups summarised: plain dicts, ready for JSON.

To add a metric, write a function of a `Run` and give it a row in `METRICS`: metrics.json then has it for every run and,
with its spread over seeds, for every group, and the report's table has it with the difference from the first group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from cifar10.report.calibration import calibration, confidence_of, coverage_summary
from cifar10.report.groups import Group, Run
from cifar10.report.metrics import classification_metrics, cross_entropy, most_confused
from cifar10.report.numbers import change, count, duration, engineering, number, percent, points
from cifar10.report.statistics import spread, wilson_interval


@dataclass(frozen=True)
class Metric:
    """A number of every run. of: None where it is unknown. form, gain: how it and a difference of two are written.

    key: its place in metrics.json; a slash leads into a section. gain: None shows no difference.
    """

    key: str
    title: str
    of: Callable[[Run], float | None]
    form: Callable[[float], str] = number
    gain: Callable[[float], str] | None = change

    def within(self, scores: dict):
        """The value of this metric in what `score` or `summarise` returns."""
        return reduce(dict.__getitem__, self.key.split("/"), scores)

    def put(self, scores: dict, value: object) -> None:
        *sections, last = self.key.split("/")
        reduce(lambda found, key: found.setdefault(key, {}), sections, scores)[last] = value


MOST_MISTAKES = 1000  # of a run, in metrics.json


def mean_over_classes(key: str) -> Callable[[Run], float]:
    return lambda run: classification_metrics(run.logits, run.labels, run.class_names)[key]


def top5_acc(run: Run) -> float | None:
    """Of more than ten classes."""
    classes = range(run.logits.shape[1])
    return float(top_k_accuracy_score(run.labels, run.logits, k=5, labels=classes)) if len(classes) > 10 else None


def of_two_classes(score: Callable) -> Callable[[Run], float | None]:
    """score: of labels and of how much each image looks like the second class; None unless both have images."""
    return lambda run: float(score(run.labels, margin(run))) if has_two(run) else None


def has_two(run: Run) -> bool:
    return run.logits.shape[1] == 2 and len(np.unique(run.labels)) == 2


def margin(run: Run) -> np.ndarray:
    """The second class's logit minus the first's, (N,), float64; the prediction is the second class above 0."""
    first, second = run.logits.astype(np.float64).T
    return second - first


def mistakes(run: Run) -> list[dict]:
    """The most confident mistakes first: `index` among the test images, `file`, `true`, `predicted`, `confidence`."""
    confidence, predicted, wrong = confidence_of(run.logits), run.logits.argmax(axis=1), np.flatnonzero(~run.correct)
    return [
        {
            "index": int(place),
            "file": None if run.files is None else str(run.files[place]),
            "true": run.class_names[run.labels[place]],
            "predicted": run.class_names[predicted[place]],
            "confidence": float(confidence[place]),
        }
        for place in wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES]
    ]


def calibrated(key: str, scaled: bool = False) -> Callable[[Run], float]:
    """One of the values of `calibration`, before or after temperature scaling."""
    return lambda run: calibration(run.logits, run.labels, run.temperature if scaled else 1.0)[key]


def selective(share: str) -> Callable[[Run], float]:
    return lambda run: coverage_summary(run.logits, run.labels)["acc_at"][share]


def averaged(score: Callable) -> Callable[[Run], float | None]:
    """score: of logits and labels; None without test-time augmentation."""
    return lambda run: None if run.views is None else float(score(run.views.logits, run.labels))


def images_per_second(run: Run) -> float | None:
    """Of training and its validation, all epochs together."""
    images, seconds, phases = run.summary.get("train_images"), run.summary.get("seconds"), run.cost.get("phases")
    return images * sum(phase["epochs"] for phase in phases) / seconds if images and seconds and phases else None


SCALED = " after temperature scaling"
TTA = "with test-time augmentation"
METRICS = [
    Metric("acc", "accuracy", lambda run: float(run.correct.mean()), percent, points),
    Metric("loss", "loss, nats", lambda run: cross_entropy(run.logits, run.labels)),
    Metric("balanced_acc", "balanced accuracy", mean_over_classes("balanced_acc"), percent, points),
    Metric("macro_f1", "macro F1", mean_over_classes("macro_f1")),
    Metric("top5_acc", "top-5 accuracy", top5_acc, percent, points),
    Metric("auroc", "AUROC", of_two_classes(roc_auc_score)),
    Metric("average_precision", "average precision", of_two_classes(average_precision_score)),
    Metric("calibration/ece", "ECE, 15 bins", calibrated("ece")),
    Metric("calibrated/ece", f"ECE{SCALED}", calibrated("ece", scaled=True)),
    Metric("calibration/brier", "Brier score", calibrated("brier")),
    Metric("calibrated/brier", f"Brier score{SCALED}", calibrated("brier", scaled=True)),
    Metric("calibrated/loss", f"loss{SCALED}, nats", calibrated("loss", scaled=True)),
    Metric("temperature", "temperature", lambda run: run.temperature, lambda value: number(value, 2), None),
    Metric("coverage/acc_at/0.8", "accuracy on the most confident 80 %", selective("0.8"), percent, points),
    Metric("coverage/acc_at/0.9", "accuracy on the most confident 90 %", selective("0.9"), percent, points),
    Metric(
        "tta/acc",
        f"accuracy {TTA}",
        averaged(lambda logits, labels: (logits.argmax(1) == labels).mean()),
        percent,
        points,
    ),
    Metric("tta/loss", f"loss {TTA}, nats", averaged(cross_entropy)),
    Metric("train_flops", "training FLOP", lambda run: run.cost.get("train_flops"), engineering, None),
    Metric("train_images_per_second", "training, images/s", images_per_second, count, None),
    Metric(
        "train_seconds", "training time, validation included", lambda run: run.summary.get("seconds"), duration, None
    ),
]


def score(run: Run) -> dict:
    """Everything that is known of one run's test predictions.

    `low` and `high` bound `acc` (Wilson, 95 %). `temperature` is fitted on the validation images; `calibration` is
    before it, `calibrated` after. `mistakes` are the 1,000 most confident ones.
    """
    scores = {"name": run.name, "seed": run.seed, "run": run.folder}
    scores |= classification_metrics(run.logits, run.labels, run.class_names)
    scores["low"], scores["high"] = wilson_interval(int(run.correct.sum()), len(run.labels))
    scores["most_confused"] = most_confused(scores["confusion_matrix"], run.class_names)
    scores["mistakes"] = mistakes(run)
    scores["coverage"] = coverage_summary(run.logits, run.labels)
    for metric in METRICS:
        metric.put(scores, metric.of(run))
    if run.views is not None:
        scores["tta"]["views"] = str(run.views)
    return scores | run.facts


def summarise(group: Group) -> dict:
    """A group's runs scored, and the spread of every metric over its seeds; None where some run does not know it."""
    scored = [score(run) for run in group.runs]
    result = {"name": group.name, "seeds": [run.seed for run in group.runs], "runs": scored}
    for metric in METRICS:
        values: list[Any] = [metric.within(run) for run in scored]
        metric.put(result, None if None in values else spread(values))
    total = len(group.runs[0].labels)
    result["low"], result["high"] = wilson_interval(round(float(np.mean(group.accs)) * total), total)
    result["confusion_matrix"] = np.sum([run["confusion_matrix"] for run in scored], axis=0).tolist()
    result["most_confused"] = most_confused(result["confusion_matrix"], group.runs[0].class_names)
    for key in ("precision", "recall", "f1"):
        result[key] = np.mean([[row[key] for row in run["per_class"]] for run in scored], axis=0).tolist()
    return result
