"""python -m tests.benchmarks: what it prints and writes. No test here says how fast anything is."""

import dataclasses
import json
import os
import shlex
import subprocess
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from cifar10.commandline.error_messages import CONF
from cifar10.errors import UserError
from cifar10.training import build
from tests.benchmarks import processes
from tests.benchmarks.__main__ import SECTIONS, main, parse
from tests.benchmarks.measure import Settings, measure
from tests.benchmarks.training import EpochClock, overrides


@pytest.fixture
def settings(shapes_root: Path) -> Settings:
    return Settings.from_options(parse(["--quick", "--root", str(shapes_root), "--device", "cpu"]))


@pytest.fixture
def no_hydra():
    GlobalHydra.instance().clear()


@pytest.fixture
def measured(shapes_root, tmp_path, monkeypatch, capsys, no_hydra) -> tuple[str, str, dict]:
    """Table, progress and JSON of every section, with a run in place of train.py that ends at once."""
    (tmp_path / "train.py").write_text("print('a run')")
    monkeypatch.setattr(processes, "TRAIN", tmp_path / "train.py")
    file = tmp_path / "new" / "figures.json"
    main(["--quick", "--repeats", "1", "--device", "cpu", "--root", str(shapes_root), "--output", str(file)])
    return *capsys.readouterr(), json.loads(file.read_text())


def test_every_section_gives_positive_figures_and_their_ratio(measured):
    out, err, written = measured
    about, results = written["environment"], written["results"]
    assert list(dict.fromkeys(result["section"] for result in results)) == list(SECTIONS)
    rows = [line for line in out.splitlines() if line.split("  ")[0] in SECTIONS]
    for row, result in zip(rows, results, strict=True):
        for what, runs in result["runs"].items():
            assert len(runs) == 1 and min(runs) > 0 and what in row
            assert f"{result['section']}, {result['name']}: {what}" in err
        ours, *beside = result["medians"].values()
        assert result["ratio"] == (pytest.approx(ours / beside[0]) if beside else None)
        assert result["name"] in row and row.endswith(result["wanted"])
    assert about["torch"] == torch.__version__ and about["threads"] == torch.get_num_threads()
    assert about["cpu"] in out and about["commit"] in out and about["precision"] == "32-true"
    assert "not CIFAR-10" in about["data"] and "mean nothing" in about["quick"], "nobody takes these for results"


def test_figures_are_medians_of_measurements_in_turn(settings):
    asked = []

    def figures(name: str, *values: float):
        return lambda left=list(values): asked.append(name) or left.pop(0)

    both = {"ours": figures("ours", 1.0, 9.0, 2.0), "usual": figures("usual", 4.0, 4.0, 5.0)}
    result = measure(dataclasses.replace(settings, repeats=3), "data", "delivered", "s", both, wanted="<= 1")
    assert asked == ["ours", "usual"] * 3
    assert result["medians"] == {"ours": 2.0, "usual": 4.0} and result["ratio"] == 0.5


@pytest.mark.parametrize("extra", [processes.ONE_STEP, *(run[1] for run in processes.RUNS.values())])
def test_every_run_that_is_measured_in_a_process_of_its_own_builds(settings, no_hydra, extra):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [*overrides(settings, 128), "output_dir=run", *extra])
    build.build_model(cfg, build.build_data(cfg))


def test_the_memory_of_the_benchmark_does_not_count_as_the_command_s():
    assert 0 < processes.launch("-c", "pass")["peak_bytes"] < 100e6, "this process, with torch, has several times that"


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(UserError, match="no such thing"):
        processes.launch("-c", "import sys; sys.exit('error: no such thing')")


def test_the_clock_leaves_out_the_first_epoch(monkeypatch):
    times = iter([0.0, 100.0, 103.0, 106.0])
    monkeypatch.setattr("tests.benchmarks.training.now", lambda: next(times))
    clock = EpochClock()
    for _ in range(3):
        clock.on_train_epoch_start(None, None)
    clock.on_train_end(None, None)
    assert clock.seconds == 3.0


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(shapes_root, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*cannot be written"):
        main(["--quick", "--root", str(shapes_root), "--output", str(tmp_path)])


def test_every_command_of_the_gpu_script_composes(command, tmp_path):
    """The script runs with an interpreter that only notes what it is asked to run."""
    (tmp_path / "python").write_text('#!/bin/bash\nprintf "%q " "$@" >> "$ASKED"; echo >> "$ASKED"\n')
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PYTHON": str(tmp_path / "python"), "ASKED": str(tmp_path / "asked"), "DEVICE": "cpu"}
    script = Path(__file__).with_name("gpu.sh")
    subprocess.run(["bash", script, tmp_path / "results"], env=environment, capture_output=True, check=True)
    asked = [shlex.split(line) for line in (tmp_path / "asked").read_text().splitlines()]
    commands = [line for line in asked if line[0] != "-c"]
    assert {line[0] for line in commands} == {"train.py", "evaluate.py", "-m"} and len(commands) > 10
    for first, *arguments in commands:
        if first == "-m":
            assert arguments.pop(0) == "tests.benchmarks" and parse(arguments).quick
        else:
            assert command(first, *arguments, "--cfg", "job") == 0, command.err
