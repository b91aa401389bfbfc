"""Folders of runs: taken before anything is written, one run in each, and printed so that they can be pasted."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cifar10.files import locked
from cifar10.run_folder import RunFolder, recipe
from cifar10.shell import quoted
from tests.conftest import PROJECT

SMALL = ["logger=null", "callbacks.dashboard=null"]
TIME = "hydra.run.dir=outputs/cnn/${now:%Y}"  # is the same for all runs of a year


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def printed(command, what: str) -> list[str]:
    """The arguments of a printed command, as a shell reads them."""
    [line] = [line.partition("python ")[2] for line in command.out.splitlines() if line.split("  ")[1:2] == [what]]
    return shlex.split(line)


def begun_together(folder: Path, *commands: list[str]) -> list[tuple[str, int]]:
    """What train.py, run several times at once, prints to stderr, and its exit codes."""
    started = [
        subprocess.Popen(
            [sys.executable, PROJECT / "train.py", *arguments], cwd=folder, stderr=subprocess.PIPE, text=True
        )
        for arguments in commands
    ]
    return [(process.communicate()[1], process.returncode) for process in started]


def test_two_runs_of_the_same_second_get_a_folder_each(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar10.commandline.claim.overrides_of", lambda *_: [])  # as if the folder were not named
    for seed in (7, 8):
        assert command("train.py", *tiny, *SMALL, f"seed={seed}", TIME) == 0, command.err
    runs = sorted(tmp_path.glob("outputs/cnn/*"))
    assert [run.name.partition("_")[2] for run in runs] == ["", "2"]
    for run, seed in zip(runs, (7, 8), strict=True):
        assert OmegaConf.load(run / ".hydra" / "config.yaml").seed == seed
        assert (run / "run.json").is_file() and not (run / ".lock").exists()
        hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml").hydra
        assert Path(hydra.run.dir).name == run.name


@pytest.mark.slow
def test_two_runs_begun_at_once_train_in_a_folder_each(tiny, tmp_path):
    ended = begun_together(tmp_path, *([*tiny, *SMALL, f"seed={seed}"] for seed in (7, 8)))
    assert [code for _, code in ended] == [0, 0], ended
    seeds = [
        OmegaConf.load(file.parent / ".hydra" / "config.yaml").seed for file in tmp_path.glob("outputs/*/*/run.json")
    ]
    assert sorted(seeds) == [7, 8]


def test_a_folder_that_holds_a_run_takes_no_second_one(command, tiny, tmp_path):
    assert command("train.py", *tiny, *SMALL, "hydra.run.dir=mine") == 0
    before = files(tmp_path / "mine")
    assert command("train.py", *tiny, *SMALL, "hydra.run.dir=mine", "model.lr=-1") == 1
    way = "resume it (python train.py resume=mine), or name a new folder"
    assert command.err.splitlines() == [f"error: hydra.run.dir=mine: already holds a run; {way}"]
    assert files(tmp_path / "mine") == before


@pytest.mark.parametrize("arguments", [["hydra.run.dir=mine"], ["hydra.run.dir=mine", "model.lr=-1"], ["resume=mine"]])
def test_what_another_process_trains_is_not_touched(command, tiny, tmp_path, arguments):
    assert command("train.py", *tiny, *SMALL, "hydra.run.dir=mine") == 0
    run = tmp_path / "mine"
    (run / "checkpoints" / ".last.ckpt.1.tmp").write_text("half a checkpoint")
    for file in (run / "metrics.csv", run / "run.json"):
        file.unlink()
    given = arguments if arguments == ["resume=mine"] else [*tiny, *SMALL, *arguments]
    with locked(run / ".lock"):
        before = files(run)
        assert command("train.py", *given) == 1
        assert command.err.splitlines() == [
            "error: mine: another process is training in this folder; wait for it, or stop it first"
        ]
        assert files(run) == before


def test_a_job_that_somebody_resumes_alone_is_not_begun_anew_by_its_sweep(command, tiny, tmp_path):
    assert command("train.py", "-m", *tiny, *SMALL, "seed=0,1", "hydra.sweep.dir=mine") == 0
    (tmp_path / "mine" / "1" / "run.json").unlink()
    with locked(tmp_path / "mine" / "1" / ".lock"):
        before = files(tmp_path / "mine" / "1")
        assert command("train.py", "resume=mine") == 1
        assert "mine/1: another process is training in this folder" in command.err
        assert files(tmp_path / "mine" / "1") == before
        assert command("train.py", "-m", *tiny, *SMALL, "seed=5,6", "hydra.sweep.dir=mine") == 1
        assert files(tmp_path / "mine" / "1") == before
    assert command("train.py", "resume=mine") == 0, command.err


def test_a_run_refused_at_once_leaves_no_folder_of_several_levels(command, tiny, tmp_path):
    assert command("train.py", *tiny, "model.lr=-1", "hydra.run.dir=a/b/c") == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    assert command("train.py", *tiny, "model.lr=-1", "hydra.run.dir=a/b/c") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["a"], "what was there before stays"


@pytest.mark.parametrize("folder", ["two words", "lr=0.1", "it's", 'a "b"', "ünï", "a,b", "(1)", "$HOME", "null", "12"])
def test_printed_commands_can_be_pasted(command, tiny, tmp_path, folder):
    assert command("train.py", *tiny, *SMALL, f"hydra.run.dir={quoted(folder)}") == 0, command.err
    script, argument = printed(command, "test it")
    assert (tmp_path / folder / "run.json").is_file() and script == "evaluate.py"
    (tmp_path / folder / "run.json").unlink()
    assert command("evaluate.py", argument) == 1
    again = shlex.split(command.err.strip().rpartition("resume it: python ")[2])
    assert command(*again, "trainer.max_epochs=2") == 0, command.err
    assert (tmp_path / folder / "run.json").is_file()


def test_printed_paths_and_given_ones_hold_from_where_the_command_was_started(command, tiny, tmp_path, shapes_root):
    data = [one for one in tiny if not one.startswith("data.root=")] + [f"data.root={os.path.relpath(shapes_root)}"]
    assert command("train.py", *data, *SMALL, "hydra.job.chdir=true", "hydra.run.dir=runs/mine") == 0, command.err
    assert printed(command, "test it") == ["evaluate.py", "run=runs/mine"]
    before = (tmp_path / "runs" / "mine" / "metrics.csv").read_text()
    assert command("train.py", "resume=runs/mine", "trainer.max_epochs=2", "hydra.job.chdir=true") == 0, command.err
    assert "1 epoch done, 2 steps" in command.out
    assert (tmp_path / "runs" / "mine" / "metrics.csv").read_text().startswith(before)
    assert command("train.py", *data, *SMALL, "hydra.job.chdir=true", "model.lr=-1", "hydra.run.dir=runs/other") == 1
    assert not (tmp_path / "runs" / "other").exists()


def test_lightning_s_quick_try_leaves_nothing(command, tiny, tmp_path):
    assert command("train.py", *tiny, "+trainer.fast_dev_run=true") == 0, command.err
    assert "a quick trial run; nothing is kept" in command.out
    assert list(tmp_path.iterdir()) == []


ADDED = {
    "ckpt_path=a.ckpt": "ckpt_path: no such setting; resume=RUN resumes a run",
    "unknown=1": "unknown: no such setting",
    "sed=1": "sed: no such setting; did you mean seed",
}


@pytest.mark.promise("configurations")
@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("sign", ["+", "++"])
def test_a_setting_that_nothing_reads_is_refused(command, tiny, tmp_path, sign, added):
    assert command("train.py", *tiny, f"{sign}{added}") == 1
    assert command.err.startswith(f"error: {ADDED[added]}") and len(command.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_says_what_it_was_trained_with(command, tiny, tmp_path):
    assert command("train.py", *tiny, *SMALL, "hydra.run.dir=mine") == 0
    one_epoch = recipe(RunFolder("mine").read_config())
    assert command("train.py", "resume=mine", "trainer.max_epochs=2", "+trainer.profiler=null") == 0, command.err
    assert recipe(RunFolder("mine").read_config()) != one_epoch, "more epochs are another recipe"
    stored = OmegaConf.load(tmp_path / "mine" / ".hydra" / "config.yaml")
    assert stored.trainer.max_epochs == 2 and stored.resume is None and "profiler" in stored.trainer
    overrides = list(OmegaConf.load(tmp_path / "mine" / ".hydra" / "overrides.yaml"))
    assert "trainer.max_epochs=2" in overrides and "trainer.max_epochs=1" not in overrides
    assert not any(override.startswith("resume=") for override in overrides)
    assert command("train.py", "resume=mine", "+trainer.profiler=null") == 0, "what was added may be given again"
    before = files(tmp_path / "mine")
    assert command("train.py", "resume=mine", "trainer.max_epochs=1") == 1
    assert "trainer.max_epochs=1: the run has already trained for 2 epochs" in command.err
    assert {path: content for path, content in files(tmp_path / "mine").items() if path.suffix != ".log"} == {
        path: content for path, content in before.items() if path.suffix != ".log"
    }


@pytest.mark.parametrize("flag", [["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"]], ids=" ".join)
def test_a_run_of_ones_own_experiment_goes_on(command, tiny, tmp_path, flag):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nmodel: {weight_decay: 0.5}\n")
    arguments = [*tiny, *SMALL, "hydra.run.dir=run"]
    assert command("train.py", arguments[0], *flag, "experiment=mine", *arguments[1:]) == 0, command.err
    (tmp_path / "own").rename(tmp_path / "elsewhere")
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0, command.err
    assert OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml").model.weight_decay == 0.5


@pytest.mark.promise("sweeps")
def test_a_sweep_whose_folders_are_named_after_its_settings_goes_on(command, tiny, tmp_path):
    named = "hydra.sweep.subdir=${hydra:job.override_dirname}"
    assert command("train.py", "-m", *tiny, *SMALL, "seed=0,1", named, "hydra.sweep.dir=mine") == 0, command.err
    first, second = sorted(tmp_path.glob("mine/**/run.json"))
    before, row = first.read_bytes(), json.loads(second.read_text())
    second.unlink()
    note = next(
        file for file in tmp_path.glob("mine/.jobs/*.json") if "seed=1" in json.loads(file.read_text())["folder"]
    )
    note.write_text(json.dumps(json.loads(note.read_text()) | {"status": "unfinished"}))
    assert command("train.py", "resume=mine") == 0, command.err
    assert first.read_bytes() == before and json.loads(second.read_text())["val/loss"] == row["val/loss"]
    script, argument = printed(command, "test and compare")
    assert command(script, argument, "output=page") == 0, command.err
    assert "(2 seeds)" in command.out
