"""docs/configuration.md: every setting, made from the configuration files and the classes that take it.

python -m tests.reference    writes the page; tests/test_docs.py fails where it differs from what the code gives
"""

import functools
import inspect
import itertools
import re
import sys
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from hydra.utils import get_class

from cifar10.__main__ import COMMANDS
from cifar10.commandline.command import PLUGINS
from cifar10.commandline.instantiate import describe
from cifar10.data.augmentation import POLICIES
from cifar10.data.preprocessing import RESIZES
from cifar10.evaluation.steps import HINTS as EVALUATE
from cifar10.exploration.steps import Settings as Explore
from cifar10.inference.export.formats import FORMATS
from cifar10.inference.export.steps import HINTS as EXPORT
from cifar10.inference.predicting.output import WRITERS
from cifar10.inference.predicting.steps import HINTS as PREDICT
from cifar10.inference.serving.steps import HINTS as SERVE
from cifar10.metric_names import METRICS
from cifar10.models.classifier import OPTIMIZERS
from cifar10.models.learning_rates import SCHEDULES
from cifar10.run_folder import WATCHERS, Free, is_free
from cifar10.training.build import COMPILE

sys.path.append(PLUGINS)  # as a command does, for the class of the search
PROJECT = Path(__file__).parent.parent
CONF, PAGE = PROJECT / "conf", PROJECT / "docs" / "configuration.md"
HINTS = {
    **{"evaluate": EVALUATE, "predict": PREDICT, "export": EXPORT, "serve": SERVE},
    "explore": typing.get_type_hints(Explore),
    "cache": {"cache": str | None, "clear": bool},
    "train": {"name": str, "seed": int, "resume": str | None, "output_dir": str},
    "corruption": {"names": list[str], "severities": list[int], "images": int | None},
}
OURS = {"checkpoint_every_n_steps": int | None}  # of the trainer's section, but not for Lightning
GIVEN = ("model.network.num_classes", "model.network.image_size")  # by the data
CHOICES = {  # of settings that a table in the code decides about; by the end of their key
    **{"data.policy": POLICIES, "data.resize": RESIZES, "data.sampler": ["balanced"], "data.classes": ["top", "leaf"]},
    **{".optimizer": OPTIMIZERS, ".schedule": SCHEDULES, "trainer.compile": COMPILE, ".monitor": METRICS},
    **{"trainer.deterministic": [True, False, "warn"], "trainer.precision": ["auto", "one of Lightning's"]},
    **{"export.format": [*FORMATS, "safetensors"], "predict.format": WRITERS, "checkpoint": ["best", "last"]},
}
NO_MEANING = "**no meaning**"
OF_EVALUATE = ("corruption",)  # groups of evaluate.py; all others are of train.py
INTRODUCTION = """# Every setting

Made from the code by `python -m tests.reference`; a test fails where it is out of date. `--help` after a command prints
its settings with their defaults, `--cfg job` those that your command composes.

`key=value` changes a setting, `+key=value` adds one that is marked with a + here, `group=choice` takes another choice
of a group. A key that does not exist, and a value of the wrong type, is an error that says what there is. `null` is
"none"; a list is `'key=[1,2]'`. What a setting may be is in brackets after its meaning. Paths are relative to where the
command is started. `${a.b}` is the value of another setting, `${oc.env:NAME,x}` that of an environment variable, or x.

The last column says where a setting of training may differ:

- **resume**: it can be given with `resume=RUN`, where a run goes on; any other setting would make it a different run.
- **sweep**: also with `resume=outputs/sweeps/DATE_TIME`.
- **recipe**: runs that differ in it, and in nothing else, still have the same recipe: `evaluate.py` takes them for
  seeds of one group. Any other setting makes another recipe. A file of weights counts by its content.

Hydra's own settings begin with `hydra.`; `hydra.run.dir=FOLDER` is the folder of a run, `hydra.sweep.dir=FOLDER` that
of a sweep.
"""


@dataclass
class Setting:
    """A line of a configuration file, or an argument that its class has besides."""

    key: str
    default: str
    meaning: str
    values: str = ""
    target: type | None = None  # the class that takes it
    added: bool = False  # by +key=value
    commented: bool = True  # in its own file


@dataclass
class File:
    """A configuration file: what its first lines say, the keys in it, and those that it takes over from another."""

    about: list[str]
    commands: list[str]
    settings: list[Setting] = field(default_factory=list)
    sections: dict[str, tuple[type, str, str]] = field(default_factory=dict)  # by key: class, its name, a comment


@functools.cache
def read(file: Path) -> File:
    """A file of conf/; keys without a meaning of their own have that of the choice which it builds on."""
    text = file.read_text()
    lines = text.splitlines()
    header = itertools.takewhile(lambda line: line.startswith("#"), lines)
    package = re.search(r"^# @package (\S+)$", text, re.MULTILINE)
    prefix = package[1] if package else group_of(file).replace("/", ".")
    found = File(*split_header(header))
    for parent in parents(file):
        below = read(parent)
        found.sections |= below.sections
    entries = list(walk(yaml.compose(text), "" if prefix == "_global_" else prefix, lines))
    for key, value, _ in entries:
        if key.endswith("._target_"):
            section = key.removesuffix("._target_")
            found.sections[section] = (get_class(value), value, next((c for k, _, c in entries if k == section), ""))
    for key, value, comment in entries:
        section, _, name = key.rpartition(".")
        if value is not None and name != "_target_" and not is_ours(key, file):
            target = found.sections.get(section, (None,))[0]
            meaning = comment or inherited(key, file) or documented(target, name)
            values = values_of(key, file, target)
            found.settings.append(Setting(key, value, meaning, values, target, commented=bool(comment)))
    return found


def is_ours(key: str, file: Path) -> bool:
    """Whether a key is not for users: what Hydra is told in the file of a command."""
    return key.startswith("hydra.") and file.parent == CONF


def split_header(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The comment on top of a file: what it says, and the commands and figures, which are indented."""
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines if "@package" not in line)
    lines = re.sub(r"(?<=\S)   +(?=data=)", "\n  ", text).splitlines()
    return [line for line in lines if not line.startswith(" ")], [line.strip() for line in lines if line[:1] == " "]


def walk(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, str | None, str]]:
    """Every key below a section, with its value as it is written, None of a section, and the comment beside it."""
    for name, value in node.value:
        key = f"{prefix}.{name.value}".lstrip(".")
        is_section = isinstance(value, yaml.MappingNode) and bool(value.value)
        end = name.end_mark if is_section and not value.flow_style else value.end_mark
        _, _, comment = lines[end.line][end.column :].partition(" # ")
        if name.value == "defaults":
            continue
        yield key, None if is_section else written(value, "\n".join(lines)), comment.strip()
        if is_section:
            yield from walk(value, key, lines)


def written(value: yaml.Node, text: str) -> str:
    if isinstance(value, yaml.ScalarNode) and value.style is None:
        return value.value
    return " ".join(text[value.start_mark.index : value.end_mark.index].split())


def parents(file: Path) -> list[Path]:
    """The choices of the same group that a file builds on."""
    defaults = (yaml.safe_load(file.read_text()) or {}).get("defaults", [])
    named = [name for name in defaults if isinstance(name, str) and name != "_self_" and file.parent != CONF]
    return [file.parent / f"{name}.yaml" for name in named if (file.parent / f"{name}.yaml").is_file()]


def inherited(key: str, file: Path) -> str:
    """The meaning that the key has in a choice which this one builds on."""
    return next((one.meaning for parent in parents(file) for one in read(parent).settings if one.key == key), "")


def documented(target: type | None, name: str) -> str:
    """What the docstring of one of our classes, or of a class that it builds on, says about an argument."""
    for one in inspect.getmro(target) if target else ():
        text = " ".join((one.__doc__ or "").split()) if one.__module__.startswith(("cifar10", "hydra_plugins")) else ""
        if found := re.search(
            rf"(?:^|[.] )(?:\w+, )*{name}(?:, \w+)*: (.+?)\.?(?:(?<=\.) (?=[A-Z]|\w+(?:, \w+)*: )|$)", text
        ):
            return found[1]
    return ""


def values_of(key: str, file: Path, target: type | None) -> str:
    """The values that a setting takes, in the words of the error about any other."""
    name = key.rpartition(".")[2]
    command = group_of(file) or file.stem
    hints = typing.get_type_hints(target.__init__) | OURS if target else HINTS.get(command, {})
    told = described(hints.get(name, object))
    path = key if target else f"{command}.{key}"
    if known := next((values for end, values in CHOICES.items() if path.endswith(end)), None):
        shown = ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in known)
        return shown + ", null" * told.endswith(", null")
    return told


def described(hint: object) -> str:
    """The words of `describe` for a table: "whole number, null"."""
    text = describe(hint).replace(" or a section", "")
    return re.sub(r"\b(a|one of) (?=\w)", "", text).replace(" or ", ", ")


def arguments(section: str, target: type, known: set[str]) -> Iterator[Setting]:
    """Arguments of one of our classes that no configuration file mentions."""
    if not target.__module__.startswith(("cifar10", "hydra_plugins")):
        return
    hints = typing.get_type_hints(target.__init__)
    for name, parameter in inspect.signature(target).parameters.items():
        key = f"{section}.{name}"
        if key not in known and key not in GIVEN and parameter.default is not parameter.empty:
            default = "null" if parameter.default is None else str(parameter.default)
            values = described(hints.get(name, object))
            yield Setting(key, default, documented(target, name), values, target, added=True)


def may_differ(setting: Setting) -> str:
    """Where a setting of train.py may differ, see `INTRODUCTION`."""
    free = {free for free in Free if is_free(setting.key, free)}
    lightning = setting.target is not None and not setting.target.__module__.startswith("cifar10")
    watches = getattr(setting.target, "changes_training", not (lightning and setting.target.__name__ in WATCHERS))
    if setting.key.startswith("callbacks.") and not watches:
        free.add(Free.RECIPE)
    return ", ".join(free_.name.lower() for free_ in (Free.RESUME, Free.SWEEP, Free.RECIPE) if free_ in free)


# the page


def groups() -> list[str]:
    """The groups of train.py in the order of its defaults list, then others."""
    listed = [
        next(iter(one))
        for one in yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
        if isinstance(one, dict)
    ]
    listed = [name.removeprefix("optional ").lstrip("/") for name in listed]
    there = sorted({group_of(file) for file in CONF.glob("**/*.yaml")} - {"", "hydra/help"})
    return [*dict.fromkeys(name for name in listed if name in there), *(name for name in there if name not in listed)]


def group_of(file: Path) -> str:
    """The group of a file's choice, such as hydra/sweeper; empty for the file of a command."""
    return file.parent.relative_to(CONF).as_posix().removeprefix(".")


@functools.cache
def known_keys() -> set[str]:
    """Every setting and section of the configuration files."""
    files = [read(file) for group in ("", *groups()) for file in (CONF / group).glob("*.yaml")]
    return {key for file in files for key in (*(one.key for one in file.settings), *file.sections)}


def page() -> str:
    """The whole page, as Markdown."""
    parts = ["## python train.py\n", *file_part(CONF / "train.yaml", train=True)]
    for group in [name for name in groups() if name not in OF_EVALUATE]:
        parts += group_part(group, train=True)
    parts += ["## python evaluate.py\n", *file_part(CONF / "evaluate.yaml", train=False)]
    for group in OF_EVALUATE:
        parts += group_part(group, train=False)
    for name, command in COMMANDS.items():
        parts += [f"## python -m cifar10 {name}\n", f"{command.summary[0].upper()}{command.summary[1:]}.\n"]
        parts += file_part(CONF / f"{name}.yaml", train=False)
    headings = [part.partition(" ")[2].strip() for part in parts if part.startswith(("## ", "### "))]
    links = ", ".join(f"[{name}](#{slug(name)})" for name in headings)
    return "\n".join([INTRODUCTION, f"{links}\n", *parts])


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def file_part(file: Path, train: bool) -> Iterator[str]:
    """The settings of a command, by section."""
    found, known = read(file), known_keys()
    yield from table([one for one in found.settings if one.target is None], train)
    for top in dict.fromkeys(section.partition(".")[0] for section in found.sections):
        yield f"### {top}\n"
        yield from sections_part(found, top, known, train, seen=set())


def sections_part(found: File, top: str, known: set[str], train: bool, seen: set) -> Iterator[str]:
    """The sections below `top`: their classes, and a table of what those take that is not in `seen`."""
    sections = {key: value for key, value in found.sections.items() if f"{key}.".startswith(f"{top}.")}
    rows = []
    lines = [
        f"- `{key}`, a `{name}`{f': {comment}' if comment else ''}\n"
        for key, (_, name, comment) in sections.items()
        if (key, name) not in seen
    ]
    seen |= {(key, name) for key, (_, name, _) in sections.items()}
    for key, (target, *_) in sections.items():
        own = [one for one in found.settings if one.key.rpartition(".")[0] == key]
        rows += [*own, *arguments(key, target, known)]
    if rows := unseen(rows, seen):
        if lines:
            yield "".join(lines)
        yield from table(rows, train)


def group_part(group: str, train: bool) -> Iterator[str]:
    """A group: what each choice is, the settings that are new in it, and the values that it changes."""
    known, seen = known_keys(), set()
    yield f"### Group {group}\n"
    for file in sorted((CONF / group).glob("*.yaml")):
        found = read(file)
        yield f"#### {group}={file.stem}\n"
        yield " ".join(found.about) + "\n"
        if found.commands:
            yield "```text\n" + "\n".join(found.commands) + "\n```\n"
        before = set(seen)
        for top in dict.fromkeys(section.partition(".")[0] for section in found.sections):
            yield from sections_part(found, top, known, train, seen)
        yield from table(unseen([one for one in found.settings if not one.target and one.meaning], seen), train)
        listed = {one[0] for one in seen - before}
        if changed := [f"`{one.key}={one.default}`" for one in found.settings if one.key not in listed]:
            yield f"Sets {', '.join(changed)}.\n"


def unseen(rows: list[Setting], seen: set) -> list[Setting]:
    """The rows that say something new of their group; `seen` has them from now on."""
    keys = {(one[0], one[-1]) for one in seen}
    new = [
        one
        for one in rows
        if (one.key, one.target) not in keys or (one.commented and (one.key, one.meaning, one.target) not in seen)
    ]
    seen |= {(one.key, one.meaning, one.target) for one in new}
    return new


def table(rows: list[Setting], train: bool) -> Iterator[str]:
    if not rows:
        return
    header = ["key", "default", "meaning", *["may differ"] * train]
    lines = [header, ["---"] * len(header)]
    for one in rows:
        default = "**required**" if one.default == "???" else f"`{one.default}`"
        meaning = (one.meaning or NO_MEANING) + f" *({one.values})*" * bool(one.values)
        lines.append([f"`{'+' * one.added}{one.key}`", default, meaning, *[may_differ(one)] * train])
    yield "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
