"""A report on finished runs: `report.html`, `report.md`, `metrics.json`, and every figure as PNG and PDF."""

import csv
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np

from cifar10.files import atomic_write
from cifar10.report import tables
from cifar10.report.figures import save_figure, svg
from cifar10.report.groups import Group
from cifar10.report.pictures import Picture, pictures

logging.getLogger("fontTools").setLevel(logging.WARNING)  # a line for each table of each font of a PDF

SECTIONS = {
    "table": "Numbers",
    "difference": "Is it real?",
    "classes": "Classes",
    "confusion": "Confusion",
    "calibration": "Calibration",
    "labels": "Corrected labels",
    "robustness": "Corruptions",
    "cifar10c": "CIFAR-10-C",
    "efficiency": "Data",
    "curves": "Training",
    "mistakes": "Mistakes",
    "runs": "Every run",
    "methods": "Methods",
}
ROBUSTNESS = {
    "robustness": ("On corrupted images", "Computed on the fly from the test images with the parameters of CIFAR-10-C"
                   " (Hendrycks & Dietterich 2019), without frost, which needs pictures of its own."),
    "cifar10c": ("On CIFAR-10-C", "The published files of Hendrycks & Dietterich 2019."),
}  # fmt: skip


def write(
    folder: Path, groups: Sequence[Group], results: dict, images: np.ndarray | None, left_out: Sequence[str] = ()
) -> list[Path]:
    """Write a whole report into `folder` and return what was written.

    results: of `comparison.evaluate`, with "corrected", "robustness", "cifar10c" and "efficiency" where there are such.
    images: of the test split, uint8 (N, 3, H, W), or None. left_out: why runs are missing, a line each.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn, files = [], []
    for picture in pictures(groups, results, images):
        for suffix in (".png", ".pdf"):
            save_figure(picture.figure, folder / "figures" / f"{picture.name}{suffix}")
        drawn.append(as_shown(picture))
    context = describe(groups, results, left_out) | {"pictures": drawn, "no_images": images is None}
    for name in ("report.html", "report.md"):
        files.append(write_text(folder / name, environment().get_template(name).render(context)))
    files.append(write_text(folder / "metrics.json", json.dumps(without_nan(flat(results)), indent=2) + "\n"))
    return [*files, folder / "figures"]


def environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    escape = jinja2.select_autoescape(["html"], default=False)
    made = jinja2.Environment(loader=loader, autoescape=escape, undefined=jinja2.StrictUndefined)
    made.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return made


def as_shown(picture: Picture) -> dict[str, object]:
    """What the templates say of a picture; a wide one is scrolled, not shrunk, on a phone."""
    title, wide = picture.name.replace("_", " "), picture.figure.get_size_inches()[0] > 5
    drawing = svg(picture.figure, picture.name, title)
    shown = {"name": picture.name, "section": picture.section, "caption": picture.caption}
    return shown | {"title": title, "wide": wide, "svg": drawing}


def describe(groups: Sequence[Group], results: dict, left_out: Sequence[str]) -> dict:
    """What the templates say, but for the pictures."""
    first = results["groups"][0]["runs"][0]
    several, count = len(groups) > 1, sum(len(group.runs) for group in groups)
    data = first.get("data", "the test images")
    names = [group.name for group in groups]
    subtitle = f"{results['images']:,} test images of {data}; {count} run{'s' * (count > 1)}"
    warnings = []
    if first.get("synthetic"):
        warnings.append("Drawn images, not CIFAR-10: no figure of this page says anything about CIFAR-10.")
    if several or count > 1:
        lead = [comparison["verdict"] for comparison in results["comparisons"]]
    else:
        lead = [f"Test accuracy {tables.percent(first['acc'])} (95 % interval {tables.percent(first['low'])} to"
                f" {tables.percent(first['high'])}), loss {first['loss']:.4f}."]  # fmt: skip
    side = tables.side_by_side(results)
    context = {
        "title": " against ".join(names[:3]) + (" and others" if len(names) > 3 else ""),
        "subtitle": subtitle,
        "warnings": warnings,
        "lead": lead,
        "several": several,
        "several_runs": count > len(groups),
        "side_header": ["", *names, *(f"difference, {name}" if len(names) > 2 else "difference" for name in names[1:])],
        "side_rows": [[what, *cells, *gains] for what, cells, gains in side],
        "comparisons": [described(comparison) for comparison in results["comparisons"]],
        "per_class": tables.per_class(results),
        "confused": tables.confused(results),
        "every_run": tables.every_run(results),
        "left_out": left_out,
        "software": software(first),
        "corrected": None,
        "robustness": [],
        "efficiency": tables.efficiency(results["efficiency"]) if "efficiency" in results else None,
    }
    if "corrected" in results:
        found = results["corrected"]
        verdicts = [comparison["verdict"] for comparison in found["comparisons"]]
        context["corrected"] = found | {"table": tables.corrected(found), "verdicts": verdicts}
    for key, (title, text) in ROBUSTNESS.items():
        if key in results:
            text = f"{text} {results[key]['images']:,} images a condition."
            table = tables.robustness(results[key])
            context["robustness"].append({"key": key, "title": title, "text": text, "table": table})
    there = {"difference": several, "labels": context["corrected"], "efficiency": context["efficiency"]}
    there |= {key: key in results for key in ROBUSTNESS}
    return context | {"sections": [(key, name) for key, name in SECTIONS.items() if there.get(key, True)]}


def described(comparison: dict) -> dict:
    """A comparison with the table of its tests."""
    bootstrap, seeds, test = comparison["bootstrap"], comparison["seed_interval"], comparison["mcnemar"]
    first = " (first seeds)" if comparison["pairs"] > 1 else ""

    def interval(found: dict) -> str:
        return f"{tables.points(found['low'])} to {tables.points(found['high'])} points"

    rows = [
        ["difference of the mean accuracies", f"{tables.points(comparison['difference'])} points"],
        ["other test images: paired bootstrap, 95 %", interval(bootstrap)],
        [
            f"other seeds ({comparison['seeds'][0]} and {comparison['seeds'][1]}): Welch, 95 %",
            interval(seeds) if seeds else "unknown: fewer than two seeds of one or of both",
        ],
        [f"only {comparison['baseline']} right{first}", f"{test['only_a']:,} images"],
        [f"only {comparison['name']} right", f"{test['only_b']:,} images"],
        ["both right; neither", f"{test['both']:,}; {test['neither']:,} images"],
        [f"McNemar's exact test{first}", f"p {p_value(test['p_value'])}"],
    ]
    if comparison["pairs"] > 1:
        rows.append(
            [f"its largest p of all {comparison['pairs']} pairs of runs", f"p {p_value(comparison['largest_p'])}"]
        )
    return comparison | {"header": ["", ""], "rows": rows}


def p_value(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.001 else f"= {p:.1e}" if p > 1e-300 else "< 1e-300"


def software(run: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
    return f"Commit {run['commit']}; {versions}." if "commit" in run else ""


def flat(results: dict) -> dict:
    """Results for machines; those of a single run have its metrics at the top as well."""
    runs = [run for group in results["groups"] for run in group["runs"]]
    if len(runs) > 1:
        return results
    return runs[0] | {"split": "test", "test/acc": runs[0]["acc"], "test/loss": runs[0]["loss"]} | results


def without_nan(value: object) -> object:
    """NaN as None, which strict JSON has."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> Path:
    """Write a file atomically."""
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def read_epochs(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv, an epoch each, without their empty cells; none if there is no such file.

    Raises ValueError for a file that is no table of numbers, an epoch in each row.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (csv.Error, TypeError) as error:  # a cell too long, a cell too many
        raise ValueError(error) from error
    for row in rows:
        sane = 0 <= row.get("epoch", -1) < 1e9 and 0 <= row.get("seconds", 0) < 1e9
        if not sane or row.get("phase", 1) not in (1, 2):
            raise ValueError(f"a row of epoch {row.get('epoch')}, phase {row.get('phase', 1)}")
    return [row | {"epoch": int(row["epoch"])} for row in rows]
