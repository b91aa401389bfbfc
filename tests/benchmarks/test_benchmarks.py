"""python -m tests.benchmarks: what it prints and writes. No test here says how fast anything is."""

import contextlib
import io
import json
import os
import statistics
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.commandline.error_messages import CONF
from cifar10.errors import UserError
from cifar10.models.scratch import ScratchClassifier
from cifar10.training import build
from tests.benchmarks import commands
from tests.benchmarks.__main__ import SECTIONS, main, parse
from tests.benchmarks.clock import EpochClock
from tests.benchmarks.settings import Settings, settle

IN_PROCESS = ("data", "step", "cache", "growth")
RESULT = {"section", "name", "unit", "a", "b", "ratio", "wanted"}


@contextlib.contextmanager
def clean_process():
    """Hydra unused, and the environment as it was afterwards."""
    GlobalHydra.instance().clear()
    environment = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)


def bench(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, run in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with clean_process(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def settings(shapes_root: Path) -> Settings:
    return settle(parse(["--quick", "--root", str(shapes_root), "--device", "cpu"]))


@pytest.fixture(scope="module")
def measured(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict]:
    """Table, progress and JSON of the sections that need no process of their own."""
    file = tmp_path_factory.mktemp("benchmark") / "new" / "figures.json"
    code, out, err = bench(
        "--quick", "--repeats", 1, "--device", "cpu", "--root", shapes_root, "--output", file,
        "--only", ",".join(IN_PROCESS),
    )  # fmt: skip
    assert code == 0, err
    return out, err, json.loads(file.read_text())


def check(result: dict, repeats: int) -> None:
    """A result has all its parts, and they agree."""
    assert result.keys() == RESULT
    sides = [side for side in (result["a"], result["b"]) if side is not None]
    for side in sides:
        assert side["name"] and len(side["runs"]) == repeats and min(side["runs"]) > 0
        assert side["median"] == statistics.median(side["runs"])
    if len(sides) == 2:
        assert result["ratio"] == pytest.approx(result["a"]["median"] / result["b"]["median"])
    else:
        assert result["ratio"] is None


def test_every_result_has_positive_figures_and_their_ratio(measured):
    results = measured[2]["results"]
    assert {result["section"] for result in results} == set(IN_PROCESS)
    for result in results:
        check(result, repeats=1)


def test_every_pair_says_what_is_wanted_of_it(measured):
    wanted = [(r["section"], r["wanted"]) for r in measured[2]["results"] if r["section"] != "growth"]
    assert wanted == [("data", ">= 20"), ("data", ">= 4"), ("step", "<= 1.10"), ("step", "<= 0.6"),
                      ("cache", ">= 8"), ("cache", ">= 2")]  # fmt: skip


def test_the_json_says_what_the_figures_hold_for(measured):
    about = measured[2]["environment"]
    assert about["torch"] == torch.__version__ and about["threads"] == torch.get_num_threads()
    assert about["cpu"] and about["commit"] and about["precision"] == "32-true" and about["quick"]
    assert "not CIFAR-10" in about["data"], "drawn images are never taken for CIFAR-10"


def test_the_table_names_the_machine_and_has_a_line_for_each_result(measured):
    out, err, written = measured
    about, results = written["environment"], written["results"]
    lines = out.strip().splitlines()
    assert about["cpu"] in lines[0] and about["commit"] in lines[1] and "not CIFAR-10" in lines[1]
    rows = [line for line in lines if line.split("  ")[0] in IN_PROCESS]
    assert len(rows) == len(results)
    for row, result in zip(rows, results, strict=True):
        assert result["name"] in row and result["a"]["name"] in row
        assert row.endswith(result["wanted"] or "")
    assert all(f"{result['section']}, {result['name']}: {result['a']['name']}" in err for result in results)


def test_start_up_and_memory_are_measured_in_processes_of_their_own(shapes_root, tmp_path, monkeypatch):
    stand_in = tmp_path / "train.py"
    stand_in.write_text("print('a run')")
    monkeypatch.setattr(commands, "TRAIN", stand_in)
    file = tmp_path / "figures.json"
    options = ["--quick", "--repeats", 2, "--device", "cpu", "--root", shapes_root, "--output", file]
    code, _, err = bench(*options, "--only", "startup,memory")
    assert code == 0, err
    results = json.loads(file.read_text())["results"]
    assert [result["section"] for result in results] == ["startup"] * 3 + ["memory"] * 2
    for result in results:
        check(result, repeats=2)
    assert results[2]["b"]["name"] == "import torch"
    assert [result["wanted"] for result in results if result["wanted"]] == ["<= 1.5 s", "<= 1.5 GB", "<= 4 GB"]


@pytest.mark.parametrize("extra", [commands.ONE_STEP, [], commands.B0], ids=["one step", "CNN", "B0"])
def test_every_run_that_is_measured_composes_and_builds(settings, extra):
    with clean_process():
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("train", commands.run_arguments(settings, 128, extra))
        build.build_model(cfg, build.build_data(cfg))
        if extra is commands.B0:
            assert build.make("callbacks.two_phase", cfg.callbacks.two_phase, TwoPhaseFineTuning).cache_views == 2


def test_the_memory_of_the_benchmark_does_not_count_as_the_commands_own():
    assert 0 < commands.launch("-c", "pass")["peak_bytes"] < 100e6, "this process, with torch, has several times that"


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(UserError, match="no such thing"):
        commands.launch("-c", "import sys; sys.exit('error: no such thing')")


def test_the_clock_counts_epochs_after_the_first_and_extrapolates_what_grows(settings, datamodule):
    clock = EpochClock()
    settings.trainer(max_epochs=3, callbacks=[clock]).fit(ScratchClassifier(list(datamodule.class_names)), datamodule)
    assert clock.epochs == 2 and 0 < clock.growing < clock.end - clock.begins[1]
    assert clock.extrapolated(1) == clock.seconds
    assert clock.extrapolated(3) == pytest.approx(clock.seconds + clock.growing)


MISTAKES = {
    "a misspelt section": (["--only", "data,stp"], "did you mean step?"),
    "no section at all": (["--only", "xyz"], ", ".join(SECTIONS)),
    "an unknown option": (["--image", "200"], "--image"),
    "no number": (["--repeats", "many"], "--repeats"),
    "no repeats": (["--repeats", "0"], "at least one"),
    "too few images": (["--images", "5"], "must be 128 to 160"),
    "too many images": (["--images", "161"], "must be 128 to 160"),
    "a folder for a file": (["--output", "."], "--output"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_line_and_leaves_nothing_behind(mistake, shapes_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, answer = MISTAKES[mistake]
    code, out, err = bench("--quick", "--root", shapes_root, *arguments)
    *before, last = err.splitlines()
    assert code == 1 and out == ""
    assert last.startswith("error: ") and answer in last
    assert before in ([], ["loading PyTorch and Lightning"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
