"""Likely label errors by confident learning (Northcutt et al. 2021, "Confident Learning", JAIR 70)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cifar10.errors import UserError

FOLDS = 5  # a class with fewer pictures is left out


@dataclass(frozen=True)
class LabelError:
    """place: of the picture among those asked about. confidence: probability of the suggested class, out of sample."""

    place: int
    label: int
    suggested: int
    confidence: float


def find(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[list[LabelError], float]:
    """Pictures whose label is likely wrong, the likeliest first, and the share of all labels that are predicted.

    features: float (N, D). labels: int (N,).

    Every picture's class is predicted by a logistic regression that has not seen it. Confident learning estimates how
    many labels are wrong; those in which the regression believes least are returned.
    Raises UserError without cleanlab.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise UserError("needs cleanlab: pip install cleanlab, or pip install -e '.[explore]'") from error
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[inverse] >= FOLDS)
    classes, given = np.unique(labels[kept], return_inverse=True)
    if len(classes) < 2:
        return [], 0.0
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=200))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probabilities: Any = cross_val_predict(regression, features[kept], given, cv=folds, method="predict_proba")
    wrong = find_label_issues(given, probabilities, filter_by="low_self_confidence", n_jobs=1)
    quality, suggested = get_label_quality_scores(given, probabilities), probabilities.argmax(1)
    wrong &= np.not_equal(suggested, given)
    found = [
        LabelError(int(kept[i]), int(labels[kept[i]]), int(classes[suggested[i]]), float(probabilities[i].max()))
        for i in sorted(np.flatnonzero(wrong), key=quality.__getitem__)
    ]
    return found, float(np.equal(suggested, given).mean())
