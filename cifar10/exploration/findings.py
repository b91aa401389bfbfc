"""Everything that is found out about a collection of pictures; the page, the JSON file and TensorBoard only show it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cifar10.errors import UserError
from cifar10.exploration import duplicates, features, labels
from cifar10.exploration.collect import Collection, sample
from cifar10.exploration.duplicates import Group
from cifar10.exploration.labels import LabelError
from cifar10.models.efficientnet import EfficientNet

log = logging.getLogger("explore")

SPLITS = ("train", "val", "test")
MOST_COMPARED = 15_000  # pictures searched for near duplicates; the time grows with the square of their number


@dataclass
class Findings:
    """chosen: places of the pictures looked at closely, int (n,); map and components follow their order.

    mean, std: per channel, in [0, 1]. means: the mean picture of all, then of each class, uint8 (1 + C, 3, S, S).
    compared: how many pictures were searched for near duplicates. map: (n, 2) in [0, 1]; None without a backbone.
    label_errors: places are the collection's. predicted: the share of the judged labels that the features predict.
    missing: why something is not here, a line each.
    """

    collection: Collection
    chosen: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    means: np.ndarray
    exact: list[Group]
    near: list[Group]
    compared: int
    map: np.ndarray | None = None
    components: np.ndarray | None = None
    label_errors: list[LabelError] = field(default_factory=list)
    predicted: float = 0.0
    label_splits: Sequence[str] = ()
    missing: list[str] = field(default_factory=list)

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Pictures of each class, (C,), by split; splits without any are left out."""
        found, classes = self.collection, len(self.collection.class_names)
        counts = {split: np.bincount(found.labels[found.splits == split], minlength=classes) for split in SPLITS}
        return {split: each for split, each in counts.items() if each.any()}

    @cached_property
    def judged(self) -> np.ndarray:
        """Places of the pictures whose labels are judged."""
        return self.chosen[np.isin(self.collection.splits[self.chosen], list(self.label_splits))]


def look(found: Collection, images: int, model: EfficientNet | None, label_splits: Sequence[str]) -> Findings:
    """Look at a collection; images: how many pictures at most are looked at closely. model: None without one."""
    chosen = sample(found.labels, images)
    learned = chosen[found.splits[chosen] != "test"]
    mean, std, means = pixel_statistics(found, chosen, learned if len(learned) else chosen)
    compared = sample(found.labels, MOST_COMPARED)
    pairs = duplicates.near_pairs(found.read, compared)
    findings = Findings(
        *(found, chosen, mean, std, means),
        exact=duplicates.exact(found.digests, found.labels, found.splits),
        near=duplicates.near(pairs, found.digests, found.labels, found.splits),
        compared=len(compared),
        label_splits=label_splits,
    )
    if model is None:
        findings.missing.append("No map and no label errors, which need a backbone's weights: weights=FILE.")
    elif len(chosen) > 3:
        use_features(findings, features.compute(model, found.read, chosen))
    return findings


def use_features(findings: Findings, values: np.ndarray) -> None:
    """Add what the features of the chosen pictures (n, D) tell."""
    found, chosen = findings.collection, findings.chosen
    findings.components = features.reduce(values)
    findings.map = features.layout(findings.components)
    asked = np.flatnonzero(np.isin(chosen, findings.judged))
    log.info("looking for label errors")
    try:
        errors, findings.predicted = labels.find(values[asked], found.labels[chosen[asked]])
    except UserError as error:
        findings.missing.append(f"No label errors: {error}.")
        return
    findings.label_errors = [replace(one, place=int(findings.judged[one.place])) for one in errors]


def pixel_statistics(
    found: Collection, places: np.ndarray, learned: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, (3,) in [0, 1], and mean pictures of all and of each class.

    learned: the places among `places` that mean and standard deviation are of.
    """
    classes = len(found.class_names)
    total, counts, sums, squares, pixels = np.zeros(()), np.zeros(classes), np.zeros(3), np.zeros(3), 0
    for few in np.array_split(places, -(-len(places) // 64)):
        images = found.read(few).astype(np.float32) / 255
        total = np.zeros((classes, *images.shape[1:])) if total.ndim == 0 else total
        np.add.at(total, found.labels[few], images)
        counts += np.bincount(found.labels[few], minlength=classes)
        kept = images[np.isin(few, learned)]
        sums += kept.sum((0, 2, 3), dtype=np.float64)
        squares += np.square(kept).sum((0, 2, 3), dtype=np.float64)
        pixels += kept[:, 0].size
    mean = sums / pixels
    means = np.concatenate(
        [total.sum(0, keepdims=True) / counts.sum(), total / np.maximum(counts, 1)[:, None, None, None]]
    )
    return mean, np.sqrt(squares / pixels - mean**2), (means * 255).round().astype(np.uint8)
