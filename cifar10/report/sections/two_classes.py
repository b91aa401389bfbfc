"""Two classes: what can be had at other thresholds than the one that the model decides at."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from sklearn.metrics import precision_recall_curve, precision_score, roc_curve

from cifar10.report import figures
from cifar10.report.document import Block, Figure, Findings, Paragraph, Table
from cifar10.report.groups import Group
from cifar10.report.metrics import ABSENT
from cifar10.report.numbers import number, percent, spread_of
from cifar10.report.scores import has_two, margin


def thresholds(found: Findings) -> Iterator[Block]:
    """Curves, and the numbers where the model decides; nothing unless both of two classes have test images."""
    first = found.groups[0].runs[0]
    if not has_two(first):
        return
    negative, positive = found.class_names
    yield Paragraph(f"{positive}, the second class, is the positive one. A model answers with it from a probability of"
                    " 50 % on; a lower threshold finds more of it and raises more false alarms.")  # fmt: skip
    groups = [{"name": group.name, **curves(group)} for group in found.groups]
    share = float(first.labels.mean())
    yield Figure("two_classes", f"Every threshold: recall of {positive} against the share of {negative} that is taken"
                 f" for {positive} (ROC), and precision against recall. A marker is where a run decides, thin lines"
                 " are seeds, dashed is guessing.",
                 partial(figures.two_classes_figure, groups, positive, share))  # fmt: skip
    header = ["", "AUROC", "average precision", f"recall of {positive}", f"recall of {negative}", "precision"]
    rows = [
        [group["name"], spread_of(summary["auroc"]), spread_of(summary["average_precision"]),
         *(percent(float(np.mean(values))) for values in (recall, 1 - false_alarms, precise))]
        for group, summary in zip(groups, found.summaries, strict=True)
        for (false_alarms, recall), (_, precise) in [(group["roc_points"], group["precision_recall_points"])]
    ]  # fmt: skip
    rows.append(["guessing", number(0.5), number(share), *["" for _ in header[3:]]])
    yield Table(header, rows)
    yield Paragraph("AUROC is the chance that a random image of the positive class scores higher than one of the other;"
                    " average precision is the area under the precision-recall curve, which tells more where positives"
                    " are rare. Recall and precision are those at the markers, means over seeds.", "note")  # fmt: skip


def curves(group: Group) -> dict:
    """ROC and precision-recall curves of each run, x ascending, and the points where each one decides."""
    roc, precision_recall, points = [], [], []
    for run in group.runs:
        score, predicted = margin(run), run.logits.argmax(axis=1)
        roc.append(roc_curve(run.labels, score)[:2])
        precision, recall, _ = precision_recall_curve(run.labels, score)
        precision_recall.append((recall[::-1], precision[::-1]))
        rates = [predicted[run.labels == label].mean() for label in (0, 1)]
        points.append([*rates, precision_score(run.labels, predicted, zero_division=ABSENT)])
    false_alarms, found, precise = np.transpose(points)
    return {
        "roc": roc,
        "precision_recall": precision_recall,
        "roc_points": (false_alarms, found),
        "precision_recall_points": (found, precise),
    }
