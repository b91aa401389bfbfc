"""Counts the promises that tests keep: `pytest --promises` writes the tables in tests/README.md from what was run.

A test that keeps a promise is marked `@pytest.mark.promise(KIND)`. It counts once, under its parameters' id or its own
name; one that tries several things notes each: `record_property("tried", NAME)`. What was skipped does not count.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- made by pytest --promises -->\n", "<!-- end -->\n"
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises", action="store_true", help="write the tables of tests/README.md from what was run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"promise(kind): counts in tests/README.md; kinds: {', '.join(KINDS)}")
    config.pluginmanager.register(Promises(config), "promises")


class Promises:
    def __init__(self, config: pytest.Config):
        self.config = config
        self.tried: dict[str, list[tuple[str, str, bool]]] = {kind: [] for kind in KINDS}  # (name, file, kept)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Iterable[None]:
        report = yield
        for marker in item.iter_markers("promise"):
            if report.skipped or (report.when != "call" and report.passed):
                continue
            names = [value for key, value in item.user_properties if key == "tried"]
            spec = getattr(item, "callspec", None)
            words = item.originalname.removeprefix("test_").replace("_", " ")
            names = names or [spec.id if spec else words]
            file = item.path.relative_to(README.parent).as_posix()
            self.tried[marker.args[0]] += [(name, file, report.passed) for name in names]
        return report

    def pytest_terminal_summary(self, terminalreporter) -> None:
        for kind, tried in self.tried.items():
            if tried:
                terminalreporter.write_line(f"{KINDS[kind]}: {sum(kept for *_, kept in tried)} of {len(tried)}")

    def pytest_sessionfinish(self) -> None:
        if self.config.getoption("--promises"):
            before, _, rest = README.read_text().partition(BEGIN)
            README.write_text(before + BEGIN + "\n".join(self.tables()) + END + rest.partition(END)[2])

    def tables(self) -> Iterable[str]:
        yield "\n| promise | kept | of |\n|---|---|---|"
        for kind, tried in self.tried.items():
            yield f"| {KINDS[kind]} | {sum(kept for *_, kept in tried)} | {len(tried)} |"
        for kind, tried in self.tried.items():
            yield f"\n### {KINDS[kind].capitalize()}\n"
            by_file: dict[str, list[str]] = {}
            for name, file, kept in tried:
                by_file.setdefault(file, []).append(name if kept else f"**{name} (broken)**")
            for file in sorted(by_file):
                yield f"- `{file}` ({len(by_file[file])}): {'; '.join(by_file[file])}"
        yield ""
