"""Counts the promises that tests keep: `pytest --promises` fills in the table of tests/README.md.

A test that keeps a promise is marked `@pytest.mark.promise(KIND)`. It counts once; one that tries several things notes
each with `record_property("tried", NAME)`. Skipped tests do not count.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

README = Path(__file__).parent / "README.md"
KINDS = {
    "kills": "kills survived",
    "bad inputs": "bad inputs handled",
    "hostile files": "hostile files defused",
    "full disks": "full disks and read-only folders survived",
    "signals": "signals answered",
    "same answers": "same answers given",
    "sweeps": "sweeps finished",
    "configurations": "configurations run or refused in a line",
}
tried, kept = Counter(), Counter()  # by kind


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises", action="store_true", help="fill in the table of tests/README.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"promise(kind): counts in tests/README.md; kinds: {', '.join(KINDS)}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note the kind where pytest-xdist takes it from the worker to the process that counts."""
    item.user_properties += [("promise", marker.args[0]) for marker in item.iter_markers("promise")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped or (report.when != "call" and report.passed):
        return
    number = sum(key == "tried" for key, _ in report.user_properties) or 1
    for key, kind in report.user_properties:
        if key == "promise":
            tried[kind] += number
            kept[kind] += number * report.passed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind in tried:
        terminalreporter.write_line(f"{KINDS[kind]}: {kept[kind]} of {tried[kind]}")
    if config.getoption("--promises"):
        text = README.read_text()
        for kind, title in KINDS.items():
            text = re.sub(rf"^\| {title} \|.*", f"| {title} | {kept[kind]} | {tried[kind]} |", text, flags=re.MULTILINE)
        README.write_text(text)
