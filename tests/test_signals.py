"""What Ctrl-C, SIGTERM and Slurm's preemption do to a run: a step is finished and saved, and it says how to go on."""

import os
import re
import signal
import stat
import time
from pathlib import Path

import pytest

from tests.killing import differences, outcome, start, train

RUN = ["data=shapes", "data.batch_size=20", "trainer.max_epochs=3", "hydra.run.dir=run"]
B0 = ["model=efficientnet_b0", "model.backbone=test_efficientnet.r160_in1k", "model.pretrained=false",
      "data.image_size=32", "callbacks.feature_caching.views=1", "callbacks.two_phase.head_epochs=1"]  # fmt: skip


def output(folder: Path) -> str:
    return (folder / "output.txt").read_text() if (folder / "output.txt").exists() else ""


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.02)


def signalled(folder: Path, arguments: list[str], moment: str, *signums: int) -> int:
    """The exit code of a run that waits at a moment until it has got these signals, each heard before the next."""
    process = start(folder, *arguments, kill=moment)
    wait_for(lambda: (folder / "here").exists())
    for number, signum in enumerate(signums):
        os.kill(process.pid, signum)
        if number + 1 < len(signums):
            wait_for(lambda: "a second signal stops at once" in output(folder))
    process.join(120)
    return process.exitcode


@pytest.mark.promise("signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_first_finishes_the_step_saves_and_says_how_to_go_on(name, shapes_root, tmp_path):
    run, signum = [*RUN, f"data.root={shapes_root}"], getattr(signal, name)
    (tmp_path / "whole").mkdir()
    assert train(tmp_path / "whole", *run) == 0
    (tmp_path / "stopped").mkdir()
    assert signalled(tmp_path / "stopped", run, "waits in a step #11", signum) == 128 + signum
    text = output(tmp_path / "stopped")
    assert f"{name}: finishing the step" in text and "stopped and saved after epoch 1, step 11" in text
    assert "python train.py resume=run" in text and "Traceback" not in text and "error" not in text
    assert train(tmp_path / "stopped", "resume=run") == 0
    assert "1 epoch and 3 batches of the next done, 11 steps" in output(tmp_path / "stopped")
    assert differences(outcome(tmp_path / "whole" / "run"), outcome(tmp_path / "stopped" / "run")) == []


@pytest.mark.promise("signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_second_stops_at_once(name, shapes_root, tmp_path):
    signum = getattr(signal, name)
    code = signalled(tmp_path, [*RUN, f"data.root={shapes_root}"], "never ends a step #11", signum, signum)
    assert code == -signum and "stopped and saved" not in output(tmp_path)
    assert train(tmp_path, "resume=run") == 0


@pytest.mark.promise("signals")
def test_in_validation_it_ends_with_the_epoch(shapes_root, tmp_path):
    code = signalled(tmp_path, [*RUN, f"data.root={shapes_root}"], "waits in validation #1", signal.SIGTERM)
    assert code == 143 and "stopped and saved after epoch 1, step 8" in output(tmp_path)


@pytest.mark.promise("signals")
def test_where_nothing_is_to_be_saved_it_stops_at_once(shapes_root, tmp_path):
    arguments = [*RUN, f"data.root={shapes_root}", *B0]
    code = signalled(tmp_path, arguments, "waits while features are computed #1", signal.SIGTERM)
    assert code == 143 and "stopped by SIGTERM" in output(tmp_path) and "Traceback" not in output(tmp_path)
    assert train(tmp_path, "resume=run") == 0


@pytest.mark.promise("signals")
def test_a_sweep_ends_with_the_job_that_is_stopped(shapes_root, tmp_path):
    arguments = ["-m", *RUN[:-1], f"data.root={shapes_root}", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert signalled(tmp_path, arguments, "waits in a step #11", signal.SIGINT) == 130
    assert "unfinished" in output(tmp_path) and not (tmp_path / "sweep" / "1").exists()


@pytest.mark.promise("signals")
def test_slurm_s_preemption_queues_the_job_again_which_goes_on_in_its_folder(shapes_root, tmp_path, monkeypatch):
    run = [*RUN[:-1], f"data.root={shapes_root}"]
    whole, preempted = tmp_path / "whole", tmp_path / "preempted"
    whole.mkdir()
    preempted.mkdir()
    assert train(whole, *run) == 0
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(stat.S_IRWXU)
    slurm = {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "cnn", "SLURM_PROCID": "0",
             "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": f"{tmp_path}:{os.environ['PATH']}"}  # fmt: skip
    moment = "waits in a step #11 " + " ".join(f"{key}={value}" for key, value in slurm.items())
    assert signalled(preempted, run, moment, signal.SIGUSR1) == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 1234\n"
    again = "environment #0 " + " ".join(
        f"{key}={value}" for key, value in (slurm | {"SLURM_RESTART_COUNT": "1"}).items()
    )
    assert train(preempted, *run, kill=again) == 0, output(preempted)
    [one], [other] = whole.glob("outputs/cnn/*"), preempted.glob("outputs/cnn/*")
    assert differences(outcome(one), outcome(other)) == []
    assert re.search("11 steps", output(preempted))
