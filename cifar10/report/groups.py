"""Runs with their predictions, grouped by recipe, and which of them can be compared."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress

import numpy as np

from cifar10.report.calibration import fit_temperature

TRAIN_SIZE = "data.train_size"


@dataclass
class Views:
    """Logits (N, C) of a run's test images, averaged over `count` views of each: test-time augmentation."""

    name: str
    count: int
    logits: np.ndarray

    def __str__(self) -> str:
        return f"{self.name}: {self.count} views of each image"


@dataclass
class Run:
    """The predictions of one finished run.

    recipe: all settings but the seed that the result depends on. logits (N, C) and labels (N,) are of the test images,
    val_logits and val_labels of the validation images. facts: what was predicted, on what, and what training cost.
    epochs: the rows of metrics.csv. files: of the test images, relative to facts["data_root"]; None where they have no
    names. views: the test images predicted with test-time augmentation, if asked for.
    """

    name: str
    seed: int
    folder: str
    recipe: dict[str, object]
    class_names: list[str]
    logits: np.ndarray
    labels: np.ndarray
    val_logits: np.ndarray
    val_labels: np.ndarray
    facts: dict = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    files: Sequence[str] | None = None
    views: Views | None = None

    @property
    def correct(self) -> np.ndarray:
        """Whether each test image is classified as its label says, bool (N,)."""
        return self.logits.argmax(axis=1) == self.labels

    @cached_property
    def temperature(self) -> float:
        """Fitted on the validation images; 1 if there are none."""
        return fit_temperature(self.val_logits, self.val_labels) if len(self.val_labels) else 1.0

    @property
    def summary(self) -> dict:
        """What training said of itself in run.json; empty where that is unknown."""
        return self.facts.get("summary", {})

    @property
    def cost(self) -> dict:
        """Parameters and operations, by phase; empty where they are unknown."""
        return self.facts.get("cost", {})

    @property
    def switch_epoch(self) -> int | None:
        """The first epoch of phase 2, from 0; None without phases."""
        return next((int(row["epoch"]) for row in self.epochs if row.get("phase") == 2), None)

    def relabelled(self, labels: np.ndarray) -> "Run":
        """The same predictions with other labels (N,); images with -1 are left out."""
        kept = labels >= 0
        files = None if self.files is None else list(compress(self.files, kept))
        return replace(self, logits=self.logits[kept], labels=labels[kept], files=files, views=None)


@dataclass
class Group:
    """Runs of one recipe that differ in their seed, in the seeds' order."""

    name: str
    runs: list[Run]

    @property
    def scores(self) -> np.ndarray:
        """The share of the group's runs that classify each test image correctly, (N,)."""
        return np.mean([run.correct for run in self.runs], axis=0)

    @property
    def accs(self) -> list[float]:
        return [float(run.correct.mean()) for run in self.runs]


def group_runs(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[Group]:
    """Group runs of the same recipe, in the order of first appearance.

    Groups that differ only in the number of training images share a name. names: in the same order; None takes
    the runs' own, with the settings that differ where two are equal.
    Raises ValueError unless there is a name for each.
    """
    by_recipe: dict[tuple, list[Run]] = {}
    for run in runs:
        by_recipe.setdefault(recipe_of(run), []).append(run)
    series = {key_of(run, but=TRAIN_SIZE): run for run in reversed(runs)}
    keys = list(dict.fromkeys(key_of(run, but=TRAIN_SIZE) for run in runs))
    if names is None:
        names = distinct_names([series[key] for key in keys])
    if len(names) != len(keys):
        raise ValueError(f"{len(names)} for {len(keys)} groups: {', '.join(series[key].name for key in keys)}")
    named = dict(zip(keys, map(str, names), strict=True))
    return [
        Group(named[key_of(members[0], but=TRAIN_SIZE)], sorted(members, key=lambda run: run.seed))
        for members in by_recipe.values()
    ]


def distinct_names(runs: Sequence[Run], most: int = 3) -> list[str]:
    """The runs' names, with up to `most` of the settings that tell runs of the same name apart."""
    bases = []
    for run in runs:
        same = [other for other in runs if other.name == run.name]
        keys = sorted({key for other in same for key in {**run.recipe, **other.recipe}
                       if run.recipe.get(key) != other.recipe.get(key)})  # fmt: skip
        settings = [f"{key.rpartition('.')[2]}={run.recipe.get(key)}" for key in keys[:most]]
        bases.append(f"{run.name} ({', '.join(settings)}{', ...' if len(keys) > most else ''})" if keys else run.name)
    counts = [bases[: number + 1].count(base) for number, base in enumerate(bases)]
    return [base if count == 1 else f"{base} #{count}" for base, count in zip(bases, counts, strict=True)]


def key_of(run: Run, but: str | None = None) -> str:
    """The run's recipe as text, but for one setting."""
    return json.dumps({key: value for key, value in run.recipe.items() if key != but}, sort_keys=True, default=str)


def recipe_of(run: Run) -> tuple:
    """What runs of one recipe share; the number of training images may be set in several ways."""
    return key_of(run, but=TRAIN_SIZE), run.summary.get("train_images", run.recipe.get(TRAIN_SIZE))


def train_images(group: Group) -> int:
    return group.runs[0].summary.get("train_images", 0)


def largest(groups: Sequence[Group]) -> list[Group]:
    """Of groups that differ only in the number of training images, the one with the most."""
    best: dict[str, Group] = {}
    for group in groups:
        key = key_of(group.runs[0], but=TRAIN_SIZE)
        if key not in best or train_images(group) > train_images(best[key]):
            best[key] = group
    return list(best.values())


def check_comparable(runs: Sequence[Run]) -> dict[str, str]:
    """Why runs cannot be compared with the first, by folder: different classes, test images or labels."""
    first, problems = runs[0], {}
    for run in runs:
        if run.class_names != first.class_names:
            problems[run.folder] = unlike(run.class_names, first.class_names, first.folder)
        elif run.facts.get("data_sha256") != first.facts.get("data_sha256") or len(run.labels) != len(first.labels):
            one, other = (f"{found.facts.get('data')}, {len(found.labels):,} images" for found in (run, first))
            problems[run.folder] = f"was tested on different images ({one}) from {first.folder} ({other})"
        elif not np.array_equal(run.labels, first.labels):
            problems[run.folder] = f"was tested with different labels from {first.folder}"
    return problems


def repeats(runs: Sequence[Run]) -> dict[str, str]:
    """Runs with the recipe, the seeds and the numbers of images of one before, which by folder: no second sample."""
    found, known = {}, {}
    for run in runs:
        sample = (recipe_of(run), run.seed, run.facts.get("data_seed"), str(run.facts.get("class_counts")))
        if (same := known.setdefault(sample, run.folder)) != run.folder:
            found[run.folder] = same
    return found


def unlike(names: Sequence[str], others: Sequence[str], owner: str, most: int = 10) -> str:
    """How a run's classes differ from the `owner`'s; names that look alike are written so that the difference shows."""
    extra, missing = ([name for name in one if name not in two] for one, two in ((names, others), (others, names)))
    if not extra and not missing:
        return f"has the classes of {owner} in another order"
    looks = [
        {"".join(unicodedata.normalize("NFKC", name).split()).casefold() for name in part} for part in (extra, missing)
    ]
    form = ascii if looks[0] & looks[1] else str
    texts = [
        ", ".join(map(form, part[:most])) + f" and {len(part) - most} more" * (len(part) > most) if part else "none"
        for part in (extra, missing)
    ]
    return f"has other classes than {owner}: {texts[0]} instead of {texts[1]}"
