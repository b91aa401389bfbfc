"""Runs scored, runs of one recipe grouped, groups compared: predictions in, plain dicts out, ready for JSON.

A report lays out what comes from here, and computes nothing itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cifar10.evaluation.calibration import calibration, coverage_summary, fit_temperature
from cifar10.evaluation.metrics import classification_metrics, most_confused
from cifar10.evaluation.statistics import (
    mcnemar,
    only_one_right,
    paired_bootstrap,
    paired_bootstrap_by_class,
    seed_interval,
    spread,
    verdict,
    wilson_interval,
)

TRAIN_SIZE = "data.train_size"
SPREADS = ("acc", "loss", "macro_f1")


@dataclass
class Run:
    """The predictions of one finished run.

    recipe: all settings that the result depends on but the seed. logits (N, C) and labels (N,) are of the test images,
    val_logits and val_labels of the validation images. facts: what was predicted, on what, and what training cost.
    epochs: the rows of metrics.csv.
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

    @property
    def correct(self) -> np.ndarray:
        """Whether each test image is classified as its label says, bool (N,)."""
        return self.logits.argmax(axis=1) == self.labels

    @property
    def switch_epoch(self) -> int | None:
        """The first epoch of phase 2, from 0; None without phases."""
        return next((row["epoch"] for row in self.epochs if row.get("phase") == 2), None)

    def relabelled(self, labels: np.ndarray) -> "Run":
        """The same predictions beside other labels (N,); images with -1 are left out."""
        kept = labels >= 0
        return Run(**(vars(self) | {"logits": self.logits[kept], "labels": labels[kept]}))


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
    """Runs of the same recipe together, in the order of their first runs.

    Groups that differ in the number of training images alone share a name. names: in the order of first appearance;
    None takes the runs' own, with the settings that differ where two are equal.
    Raises ValueError where there are not as many names as there have to be.
    """
    by_recipe: dict[str, list[Run]] = {}
    for run in runs:
        by_recipe.setdefault(key_of(run), []).append(run)
    series = {key_of(run, but=TRAIN_SIZE): run for run in reversed(runs)}
    keys = list(dict.fromkeys(key_of(run, but=TRAIN_SIZE) for run in runs))
    if names is None:
        names = distinct_names([series[key] for key in keys])
    if len(names) != len(keys):
        raise ValueError(f"{len(names)} names for {len(keys)}: {', '.join(series[key].name for key in keys)}")
    named = dict(zip(keys, map(str, names), strict=True))
    return [
        Group(named[key_of(members[0], but=TRAIN_SIZE)], sorted(members, key=lambda run: run.seed))
        for members in by_recipe.values()
    ]


def distinct_names(runs: Sequence[Run], most: int = 3) -> list[str]:
    """The runs' names, with up to `most` of the settings that tell runs of the same name apart."""
    names = []
    for run in runs:
        same = [other for other in runs if other.name == run.name]
        keys = sorted({key for other in same for key in {**run.recipe, **other.recipe}
                       if run.recipe.get(key) != other.recipe.get(key)})  # fmt: skip
        settings = [f"{key.rpartition('.')[2]}={run.recipe.get(key)}" for key in keys[:most]]
        name = f"{run.name} ({', '.join(settings)}{', ...' if len(keys) > most else ''})" if keys else run.name
        names.append(name if name not in names else f"{name} #{names.count(name) + 1}")
    return names


def score(run: Run) -> dict:
    """Everything that is known of one run's test predictions: see the keys.

    `low` and `high` bound `acc` (Wilson, 95 %). `temperature` is fitted on the validation images; `calibration` is
    before it and `calibrated` after.
    """
    scores = classification_metrics(run.logits, run.labels, run.class_names)
    low, high = wilson_interval(int(run.correct.sum()), len(run.labels))
    temperature = fit_temperature(run.val_logits, run.val_labels)
    return {
        "name": run.name,
        "seed": run.seed,
        "run": run.folder,
        **scores,
        "low": low,
        "high": high,
        "most_confused": most_confused(scores["confusion_matrix"], run.class_names),
        "temperature": temperature,
        "calibration": calibration(run.logits, run.labels),
        "calibrated": calibration(run.logits, run.labels, temperature),
        "coverage": coverage_summary(run.logits, run.labels),
        **run.facts,
    }


def summarise(group: Group) -> dict:
    """A group's runs scored, and the mean and spread over its seeds of what a table has."""
    scored = [score(run) for run in group.runs]
    result = {"name": group.name, "seeds": [run.seed for run in group.runs], "runs": scored}
    result |= {key: spread([run[key] for run in scored]) for key in SPREADS}
    for stage in ("calibration", "calibrated"):
        result[stage] = {key: spread([run[stage][key] for run in scored]) for key in ("ece", "brier", "loss")}
    mean = float(np.mean(group.accs))
    total = len(group.runs[0].labels)
    result["low"], result["high"] = wilson_interval(round(mean * total), total)
    result["confusion_matrix"] = np.sum([run["confusion_matrix"] for run in scored], axis=0).tolist()
    for key in ("precision", "recall", "f1"):
        result[key] = np.mean([[row[key] for row in run["per_class"]] for run in scored], axis=0).tolist()
    seconds = [run["summary"]["seconds"] for run in scored if run.get("summary", {}).get("seconds")]
    # other work on the machine only ever adds to a time
    result["train_seconds"] = float(min(seconds)) if len(seconds) == len(scored) else None
    flops = [run["cost"]["train_flops"] for run in scored if "cost" in run]
    result["train_flops"] = float(np.mean(flops)) if len(flops) == len(scored) else None
    return result


def compare(baseline: Group, other: Group) -> dict:
    """What `other` has that `baseline` has not: the difference of the mean accuracies, and what it survives.

    `bootstrap` holds the seeds and redraws the test images; `seed_interval` holds the test images and asks for other
    seeds. `mcnemar` compares the two runs of lowest seed; `largest_p` is that test's largest p of all pairs of runs.
    """
    a, b = baseline.runs[0].correct, other.runs[0].correct
    pairs = [mcnemar(one.correct, two.correct)["p_value"] for one in baseline.runs for two in other.runs]
    labels, classes = baseline.runs[0].labels, len(baseline.runs[0].class_names)
    bootstrap = paired_bootstrap(baseline.scores, other.scores)
    seeds = seed_interval(baseline.accs, other.accs)
    only_baseline, only_other = only_one_right(a, b)
    return {
        "baseline": baseline.name,
        "name": other.name,
        "difference": bootstrap["difference"],
        "bootstrap": bootstrap,
        "seed_interval": seeds,
        "verdict": verdict(bootstrap, seeds, baseline.name, other.name),
        "mcnemar": mcnemar(a, b),
        "pairs": len(pairs),
        "largest_p": max(pairs),
        "by_class": paired_bootstrap_by_class(baseline.scores, other.scores, labels, classes),
        "only_baseline": only_baseline.tolist(),
        "only_other": only_other.tolist(),
    }


def evaluate(groups: Sequence[Group]) -> dict:
    """All groups summarised, and each but the first compared with the first."""
    return {
        "class_names": groups[0].runs[0].class_names,
        "images": len(groups[0].runs[0].labels),
        "groups": [summarise(group) for group in groups],
        "comparisons": [compare(groups[0], group) for group in groups[1:]],
    }


def relabel(groups: Sequence[Group], labels: np.ndarray) -> dict:
    """The same predictions against other labels (N,), -1 for images to be left out: accuracy and comparisons."""
    original = groups[0].runs[0].labels
    kept = labels >= 0
    corrected = [Group(group.name, [run.relabelled(labels) for run in group.runs]) for group in groups]
    counts = {"images": int(kept.sum()), "left_out": int((~kept).sum())}
    counts["changed"] = int((labels != original)[kept].sum())
    rows = []
    for before, after in zip(groups, corrected, strict=True):
        total = len(after.runs[0].labels)
        low, high = wilson_interval(round(float(np.mean(after.accs)) * total), total)
        losses = [classification_metrics(run.logits, run.labels, run.class_names)["loss"] for run in after.runs]
        rows.append({"name": before.name, "original": spread(before.accs), "acc": spread(after.accs),
                     "low": low, "high": high, "loss": spread(losses)})  # fmt: skip
    return counts | {"groups": rows, "comparisons": [compare(corrected[0], group) for group in corrected[1:]]}


def key_of(run: Run, but: str | None = None) -> str:
    """The run's recipe as text, but for one setting."""
    return json.dumps({key: value for key, value in run.recipe.items() if key != but}, sort_keys=True, default=str)


def train_images(group: Group) -> int:
    return group.runs[0].facts.get("summary", {}).get("train_images", 0)


def efficiency(groups: Sequence[Group]) -> list[dict]:
    """Accuracies by the number of training images, of recipes that differ in nothing else: "name", "sizes", "accs".

    Empty unless some recipe has two numbers.
    """
    series: dict[str, dict] = {}
    for group in groups:
        found = series.setdefault(key_of(group.runs[0], but=TRAIN_SIZE), {"name": group.name, "points": []})
        found["points"].append((train_images(group), group.accs))
    if max(len(found["points"]) for found in series.values()) < 2:
        return []
    result = []
    for found in series.values():
        sizes, accs = zip(*sorted(found["points"]), strict=True)
        result.append({"name": found["name"], "sizes": list(sizes), "accs": list(accs)})
    return result


def largest(groups: Sequence[Group]) -> list[Group]:
    """Of groups that differ in the number of training images alone, the one with most."""
    best: dict[str, Group] = {}
    for group in groups:
        key = key_of(group.runs[0], but=TRAIN_SIZE)
        if key not in best or train_images(group) > train_images(best[key]):
            best[key] = group
    return list(best.values())


def check_comparable(runs: Sequence[Run]) -> dict[str, str]:
    """Why runs cannot be compared with the first, by folder: other classes, other test images, other labels."""
    first, problems = runs[0], {}
    for run in runs[1:]:
        if run.class_names != first.class_names:
            problems[run.folder] = f"has the classes {', '.join(run.class_names)}; {first.folder} has others"
        elif run.facts.get("data_sha256") != first.facts.get("data_sha256") or len(run.labels) != len(first.labels):
            one, other = (f"{found.facts.get('data')}, {len(found.labels):,} images" for found in (run, first))
            problems[run.folder] = f"was tested on other images ({one}) than {first.folder} ({other})"
        elif not np.array_equal(run.labels, first.labels):
            problems[run.folder] = f"was tested with other labels than {first.folder}"
    return problems
