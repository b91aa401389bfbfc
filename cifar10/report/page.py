"""A report on finished runs: `report.html`, `report.md`, `metrics.json`, and every figure as PNG and PDF."""

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from cifar10.files import atomic_write
from cifar10.report.document import Document, Figure, Findings, Images, Paragraph, Section
from cifar10.report.figures import DOUBLE, SINGLE, save_figure, svg
from cifar10.report.groups import Group
from cifar10.report.numbers import SPACE, count, interval, percent, plural, spread_of
from cifar10.report.sections import calibration, classes, conditions, headline, mistakes, runs, two_classes

logging.getLogger("fontTools").setLevel(logging.WARNING)  # a line for each table of each font of a PDF

# to add a section, write the function that yields its blocks and give it a row; one without blocks is left out
SECTIONS = [
    ("overview", "Overview", headline.overview),
    ("numbers", "In numbers", headline.side_by_side),
    ("difference", "Is the difference real?", headline.difference),
    ("classes", "Classes", classes.class_by_class),
    ("thresholds", "ROC and precision-recall", two_classes.thresholds),
    ("confusion", "Confusion matrix", classes.confusion),
    ("calibration", "Calibration", calibration.reliability),
    ("labels", "With corrected labels", conditions.corrected),
    ("robustness", "On corrupted images", conditions.computed),
    ("cifar10c", "On CIFAR-10-C", conditions.published),
    ("efficiency", "How much data does it take?", conditions.training_sizes),
    ("curves", "Training", runs.curves),
    ("mistakes", "Mistakes", mistakes.galleries),
    ("runs", "Every run", runs.every_run),
    ("methods", "Methods", runs.methods),
]


def write(
    folder: Path, groups: Sequence[Group], results: dict, images: Images | None, left_out: Sequence[str] = ()
) -> list[Path]:
    """Write a whole report into `folder` and return what was written; the arguments are those of `Findings`."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    document = compose(Findings(groups, results, images, left_out))
    drawings = {figure.name: save(figure, folder / "figures") for figure in document.figures()}
    files = []
    for name in ("report.html", "report.md"):
        text = environment().get_template(name).render(document=document, drawings=drawings)
        files.append(write_text(folder / name, text))
    files.append(
        write_text(folder / "metrics.json", rows_on_lines(json.dumps(without_nan(flat(results)), indent=2)) + "\n")
    )
    return [*files, folder / "figures"]


def compose(found: Findings) -> Document:
    """Everything that a report says, in order."""
    facts = found.groups[0].runs[0].facts
    lead: list[Any] = [Paragraph(one["verdict"], "lead") for one in found.comparisons] or [
        Paragraph(accuracy_of(found), "lead")
    ]
    lead += [Paragraph(text) for text in headline.unequal_classes(found)]
    lead += [Paragraph(found.results["chosen"])] if "chosen" in found.results else []
    if facts.get("synthetic"):
        lead.insert(0, Paragraph("Synthetic images, not CIFAR-10: no number on this page says anything about CIFAR-10.",
                                 "warning"))  # fmt: skip
    first, *others = found.names
    runs_read = plural(sum(len(group.runs) for group in found.groups), "run")
    compared = " and ".join(others) if len(others) < 3 else f"{others[0]}, {others[1]} and others"
    return Document(
        title=f"{compared} compared with {first}" if others else first,
        subtitle=f"{count(found.results['images'])} test images of {facts.get('data', 'a data set')}; {runs_read}",
        lead=lead,
        sections=[Section(key, title, blocks) for key, title, build in SECTIONS if (blocks := list(build(found)))],
    )


def accuracy_of(found: Findings) -> str:
    summary = found.summaries[0]
    return (f"Test accuracy {spread_of(summary['acc'], percent)} (95{SPACE}% interval"
            f" {interval(summary['low'], summary['high'])}), loss {spread_of(summary['loss'])}.")  # fmt: skip


def save(figure: Figure, folder: Path) -> dict[str, str]:
    """Save a figure as PNG and PDF; return it as SVG for a page and for a phone."""
    drawing = figure.draw(width=DOUBLE)
    for suffix in (".png", ".pdf"):
        save_figure(drawing, folder / f"{figure.name}{suffix}")
    title = figure.name.replace("_", " ")
    narrow = svg(figure.draw(width=SINGLE), f"{figure.name}-narrow", title)
    return {"title": title, "wide": svg(drawing, figure.name, title), "narrow": narrow}


def inline(document: Document) -> dict[str, dict[str, str]]:
    """Every figure as SVG for a page and for a phone, by name; a screen reader says its caption."""
    return {
        figure.name: {
            look: svg(figure.draw(width), f"{figure.name}{end}", figure.caption)
            for look, width, end in (("wide", DOUBLE, ""), ("narrow", SINGLE, "-narrow"))
        }
        for figure in document.figures()
    }


def environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    escape = jinja2.select_autoescape(["html"], default=False)
    made = jinja2.Environment(
        loader=loader, autoescape=escape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["plain"] = plain
    made.filters["unbroken"] = lambda text: re.sub(r"(?<=\d) (?=%)", SPACE, text)
    return made


def plain(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    text = re.sub(r"\s*[\r\n]\s*", " ", text)
    text = re.sub(r"[\\`*\[\]~|]|<(?=[\w/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    starts_a_block = r"^\s*(?:#+|[-+]|\d+[.)])(?=\s|$)|^\s*>"
    return re.sub(starts_a_block, lambda found: f"{found[0][:-1]}\\{found[0][-1]}", text)


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


def rows_on_lines(text: str) -> str:
    """Indented JSON with each list of numbers on one line: a matrix of 300 classes would have 90,000."""
    return re.sub(r"\[\n[\s\d.,e+-]+\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)


def write_text(path: Path, text: str) -> Path:
    """Write a file atomically."""
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path
