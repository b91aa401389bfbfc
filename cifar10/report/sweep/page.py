"""The page about a sweep, `sweep.html`: its jobs laid out in the blocks of a report."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cifar10.report.document import Block, Code, Document, Paragraph, Section
from cifar10.report.numbers import plural, printable, spread_of
from cifar10.report.page import environment, inline, write_text
from cifar10.report.sweep import sections
from cifar10.report.sweep.jobs import Sweep, numbers_of, written

# a section without blocks is left out
SECTIONS = [
    ("leaderboard", "Leaderboard", sections.leaderboard),
    ("front", "Pareto front", sections.front),
    ("settings", "What leads where", sections.parallel),
    ("importance", "What mattered", sections.importance),
    ("curves", "Learning curves", sections.curves),
    ("ended", "Pruned and failed", sections.ended_early),
    ("cost", "Cost", sections.cost),
]


def write(file: Path, sweep: Sweep) -> Path:
    """Write the page atomically; returns its path."""
    document = compose(sweep)
    text = environment().get_template("report.html").render(document=document, drawings=inline(document))
    return write_text(file, text)


def compose(sweep: Sweep) -> Document:
    """Everything that the page says, in order."""
    keys = ", ".join(short(sweep.differing)) or "a single setting"
    return Document(
        title=printable(f"Sweep of {keys}"),
        subtitle=printable(f"{sweep.name}: {states(sweep)}"),
        lead=[*headline(sweep), *(Code(what.capitalize(), printable(text)) for what, text in sweep.commands.items())],
        sections=[Section(key, title, blocks) for key, title, build in SECTIONS if (blocks := list(build(sweep)))],
    )


def short(keys: Sequence[str]) -> list[str]:
    """The last part of each setting's name, or the whole where that is another's, too."""
    last = [re.split(r"[./]", key)[-1] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def states(sweep: Sweep) -> str:
    """How many jobs there are, and how they fared."""
    counts = {status: len(sweep.of_status(status)) for status in ("finished", "pruned", "failed")} | {
        "left": sweep.left
    }
    total = max(sweep.planned or 0, len(sweep.jobs))
    return f"{plural(total, 'job')}, " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def headline(sweep: Sweep) -> Iterator[Block]:
    """The best setting, and by what it was chosen."""
    objective = sweep.objective
    if any(job.figures.get("synthetic") for job in sweep.jobs):
        yield Paragraph("Synthetic images, not CIFAR-10: no number on this page says anything about CIFAR-10.",
                        "warning")  # fmt: skip
    if not sweep.ranked:
        why = "None of the jobs is the best: they were trained without validation images, and have no"
        text = f"{why} {objective.name}." if sweep.unvalidated else f"No job has finished with a {objective.name} yet."
        yield Paragraph(text, "lead")
        return
    best, ranked, tried = sweep.ranked[0], len(sweep.ranked), len(sweep.settings)
    spread = best.spread(objective.name)
    several = spread["n"] > 1
    done = [job for job in best.jobs if job.value(objective.name) is not None]
    what = f"Best: {written(best.values)}, " if best.values else ""
    seeds = f" over {spread['n']} seeds (jobs {numbers_of(done)})" if several else f" (job {numbers_of(done)})"
    yield Paragraph(f"{what}{objective.name} {spread_of(spread, sections.figure)}{seeds}.", "lead")
    among = plural(ranked, "setting") + (f" with a result, of {tried} tried" if ranked < tried else "")
    text = f"Chosen by the {objective.wanted} {'mean ' * several}{objective.name} of {among}, on validation images"
    text += " alone: the test images have not been touched."
    if ranked > 1:
        text += " The best of several is partly luck: expect a little less on new images."
    if len({len(setting.results(objective.name)) for setting in sweep.ranked}) > 1:
        text += " Not every setting has the same number of seeds: a mean over fewer is less certain."
    if len(sweep.objectives) > 1:
        wanted = ", ".join(f"{each.name} ({each.wanted})" for each in sweep.objectives)
        text += f" On the Pareto front of {wanted}: {plural(len(sweep.front), 'setting')}."
    yield Paragraph(text)
