"""Jobs of a sweep side by side: with every launcher the figures of one after the other, and none outlives its sweep."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import hydra
import psutil
import pytest
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from cifar10.commandline.error_messages import CONF
from cifar10.sweeps import launchers
from tests.conftest import PROJECT
from tests.sweeps.test_resume import SMALL, rows

EPOCHS = 20  # long enough for something to happen after the first
LONG = [
    *(one for one in SMALL if "max_epochs" not in one),
    f"trainer.max_epochs={EPOCHS}",
    "callbacks.early_stopping=null",
]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
needs = {
    name: pytest.mark.skipif(not find_spec(f"hydra_plugins.{plugin}"), reason=f"needs {plugin.replace('_', '-')}")
    for name, plugin in {"joblib": "hydra_joblib_launcher", "submitit": "hydra_submitit_launcher"}.items()
}


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """`train.py` in a folder, with its output in `output.txt` there."""
    with (folder / "output.txt").open("a") as output:
        command = [sys.executable, str(PROJECT / "train.py"), *arguments]
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)


def run(folder: Path, *arguments: str) -> str:
    """What it prints; it must succeed."""
    code = start(folder, *arguments).wait(300)
    text = (folder / "output.txt").read_text()
    assert code == 0, text
    return text


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.02)


@pytest.fixture
def long(shapes_root: Path) -> list[str]:
    return [*LONG, f"data.root={shapes_root}"]


@pytest.fixture(scope="module")
def in_a_row(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of seed=0,1,2, one job after the other."""
    folder = tmp_path_factory.mktemp("in_a_row")
    run(folder, "-m", *LONG, f"data.root={shapes_root}", "seed=0,1,2", "hydra.sweep.dir=sweep")
    return folder / "sweep"


@pytest.fixture
def running(long: list[str], tmp_path: Path) -> subprocess.Popen:
    """A sweep of two jobs at a time, whose first one has something to resume from."""
    process = start(tmp_path, "-m", *JOBLIB, *long, "seed=0,1,2", "hydra.sweep.dir=mine")
    wait_for(lambda: (tmp_path / "mine" / "0" / "checkpoints" / "last.ckpt").exists() or process.poll() is not None)
    return process


def jobs_of(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if any("popen_loky" in word for word in child.cmdline())]


def has_ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@needs["joblib"]
@pytest.mark.promise("sweeps")
def test_a_sweep_that_loses_a_job_to_the_system_goes_on_with_its_launcher_to_the_same_bits(running, in_a_row, tmp_path):
    before = jobs_of(running)
    before[0].kill()
    assert running.wait(60) == 1
    text = (tmp_path / "output.txt").read_text()
    assert "error: a job's process has died" in text.splitlines()[-1] and "Traceback" not in text
    assert "python train.py resume=mine" in text
    assert all(map(has_ended, before))
    text = run(tmp_path, "resume=mine").removeprefix(text)
    assert "at most 2 jobs at a time" in text, "the launcher is remembered"
    assert all(rows(tmp_path / "mine" / str(number)) == rows(in_a_row / str(number)) for number in range(3))


@needs["joblib"]
@pytest.mark.promise("kills")
def test_no_job_outlives_a_command_that_is_killed(running):
    jobs = jobs_of(running)
    assert jobs
    running.kill()
    wait_for(lambda: all(map(has_ended, jobs)), 20)


@needs["joblib"]
@pytest.mark.promise("signals")
def test_ctrl_c_ends_all_jobs_and_the_table_says_how_to_go_on(running, tmp_path):
    jobs = jobs_of(running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    assert running.wait(60) == 128 + signal.SIGINT
    wait_for(lambda: all(map(has_ended, jobs)), 20)
    text = (tmp_path / "output.txt").read_text()
    assert "python train.py resume=mine" in text and "Traceback" not in text


@needs["joblib"]
@pytest.mark.promise("sweeps")
def test_a_crash_in_a_job_is_a_line_and_its_traceback_is_in_its_log(long, tmp_path):
    broken = "+callbacks.broken={_target_: tests.sweeps.test_launchers.Broken}"
    process = start(tmp_path, "-m", *JOBLIB, *long, broken, "seed=0,1", "hydra.sweep.dir=mine")
    assert process.wait(120) == 1
    text = (tmp_path / "output.txt").read_text()
    assert text.splitlines()[-1] == "error: ZeroDivisionError: division by zero"
    assert "Traceback" in (tmp_path / "mine" / "1" / "train.log").read_text()


@needs["submitit"]
@pytest.mark.promise("sweeps")
def test_submitit_on_this_machine_gives_the_same_bits(long, in_a_row, tmp_path):
    run(tmp_path, "-m", "hydra/launcher=submitit_local", *long, "seed=0,1", "hydra.sweep.dir=mine")
    assert all(rows(tmp_path / "mine" / str(number)) == rows(in_a_row / str(number)) for number in range(2))


# Stand-ins for Slurm's commands: sbatch runs the tasks here, one after the other, and again those that ask for it; srun
# preempts the first one as soon as it has something to resume from.
SLURM = {
    "sbatch": """
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
        export SLURM_ARRAY_JOB_ID=7 SLURM_JOB_ID=7 SLURM_JOB_NAME=train SLURM_NTASKS=1 SLURM_RESTART_COUNT=0
        for task in $(seq 0 "$last"); do
            export SLURM_ARRAY_TASK_ID=$task
            sh "$1"
            while rm "$here/requeued" 2> /dev/null; do SLURM_RESTART_COUNT=1 sh "$1"; done
        done > "$here/tasks.txt" 2>&1 &
        echo Submitted batch job 7""",
    "srun": """
        while [ "${1#--}" != "$1" ]; do case $1 in --output | --error) shift ;; esac; shift; done
        SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 "$@" &
        if [ $SLURM_ARRAY_TASK_ID$SLURM_RESTART_COUNT = 00 ]; then
            until [ -e "$here/mine/0/checkpoints/last.ckpt" ]; do sleep 0.1; done
            kill -USR2 $!
        fi
        wait $!""",
    "scontrol": """
        echo "$@" >> "$here/asked"
        touch "$here/requeued" """,
    "sacct": """
        printf 'JobID|State|NodeList\\n7_0|RUNNING|here\\n7_1|RUNNING|here\\n' """,
}


@needs["submitit"]
@pytest.mark.promise("signals")
def test_a_job_that_slurm_preempts_is_requeued_and_goes_on_where_it_was(long, in_a_row, tmp_path, monkeypatch):
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nhere={tmp_path}\n{script}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = [
        f"hydra.launcher.{one}" for one in ("partition=gpu", "timeout_min=240", "cpus_per_task=8", "gpus_per_node=1")
    ]
    run(tmp_path, "-m", "hydra/launcher=submitit_slurm", *asked, *long, "seed=0,1", "hydra.sweep.dir=mine")
    assert (tmp_path / "asked").read_text() == "requeue 7_0\n"
    output = (tmp_path / "tasks.txt").read_text()
    assert output.count("  train loss ") == 2 * EPOCHS, "no epoch is trained twice"
    assert all(rows(tmp_path / "mine" / str(number)) == rows(in_a_row / str(number)) for number in range(2))
    [script] = (tmp_path / "mine" / ".submitit").glob("7/*.sh")
    lines = ("partition=gpu", "time=240", "cpus-per-task=8", "gpus-per-node=1", "signal=USR2@120")
    assert all(f"#SBATCH --{line}\n" in script.read_text() for line in lines)


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch):
    def composed(count: int, *overrides: str) -> DictConfig:
        """The configuration of a sweep of so many seeds."""
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("train", ["hydra.mode=MULTIRUN", *overrides], return_hydra_config=True)
        OmegaConf.set_readonly(config.hydra, False)
        config.hydra.overrides.task.append(f"seed=range({count})")
        return config

    for name in ("OMP_NUM_THREADS", launchers.CORES, launchers.PLACES):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr(launchers, "cores", lambda: 8)
    with launchers.ShareMachine.held:
        yield composed


JOB = """
import os, time
from cifar10.machine import cores
from cifar10.sweeps.launchers import take_place
take_place()
print(os.environ.get("CUDA_VISIBLE_DEVICES", ""), cores(), os.environ["OMP_NUM_THREADS"], flush=True)
time.sleep(60)
"""


@needs["joblib"]
@pytest.mark.parametrize(
    ("gpus", "count", "asked", "places"),
    [
        pytest.param("", 3, [], ["", ""], id="no GPU: two jobs at a time"),
        pytest.param("", 1, [], [""], id="as many as there are"),
        pytest.param("2,5,7", 4, [], ["2", "5", "7"], id="a GPU each"),
        pytest.param("0,1", 4, ["hydra.launcher.n_jobs=4"], ["0", "0", "1", "1"], id="a GPU for two"),
        pytest.param("0,1,2,3", 4, ["trainer.devices=2"], ["0,1", "2,3"], id="two GPUs each"),
        pytest.param("0,1", 2, ["trainer.accelerator=cpu"], ["0,1", "0,1"], id="GPUs that nobody wants"),
    ],
)
def test_cores_and_gpus_are_shared_out(compose, monkeypatch, gpus, count, asked, places):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    launchers.share_out(compose(count, "hydra/launcher=joblib", *asked))
    command, options = [sys.executable, "-c", JOB], {"cwd": PROJECT, "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen(command, **options) for _ in places]
    try:
        found = sorted(job.stdout.readline().rsplit(maxsplit=2) for job in jobs)
    finally:
        for job in jobs:
            job.kill()
            job.communicate()
    share = str(min(len(os.sched_getaffinity(0)), 8 // len(places)))
    assert [line[:-2] for line in found] == [[place] if place else [] for place in places]
    assert {line[-2] for line in found} == {share} and {line[-1] for line in found} == {str(8 // len(places))}


@needs["joblib"]
def test_threads_that_the_user_has_set_are_left_alone(compose, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    launchers.share_out(compose(2, "hydra/launcher=joblib"))
    assert os.environ["OMP_NUM_THREADS"] == "3"


def stored(*settings: str) -> Path:
    """A sweep's folder with such notes."""
    notes = Path("mine/.jobs")
    notes.mkdir(parents=True)
    (notes / "overrides").write_text(json.dumps(["seed=0,1", *settings]))
    return notes / "overrides"


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize(
    "setting",
    [
        "hydra.launcher.setup=['touch owned']",
        "+hydra.launcher.python='sh -c owned'",
        "+hydra.launcher.srun_args=[--owned]",
        "hydra.launcher.additional_parameters={wrap: owned}",
        "hydra.launcher.submitit_folder=/tmp",
        "hydra.launcher.partition='gpu\\n#SBATCH --wrap=owned'",
        "hydra.launcher.n_jobs=${oc.env:HOME}",
        "hydra.launcher._target_=os.system",
        "hydra/launcher=other",
        "hydra/sweeper=other",
        "hydra.sweeper._target_=os.system",
        "hydra.sweeper.params.seed=0,1",
    ],
)
def test_a_launcher_setting_that_could_run_something_must_be_given_again(command, setting):
    before = stored("hydra/launcher=submitit_slurm", setting).read_bytes()
    assert command("train.py", "resume=mine") == 1
    assert "which is not accepted from a file" in command.err and len(command.err.splitlines()) == 1
    assert [path.name for path in Path("mine").rglob("*")] == [".jobs", "overrides"]
    assert Path("mine/.jobs/overrides").read_bytes() == before


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(
    "argument", ["hydra/sweeper=search", "sweep=random", "hydra.sweeper.params.seed=3", "hydra.sweep.subdir=x"]
)
def test_a_resumed_sweep_keeps_its_sweeper(command, argument):
    stored()
    assert command("train.py", "resume=mine", argument) == 1
    assert command.err.startswith(f"error: {argument}: a sweep is resumed as it is"), command.err
    assert [path.name for path in Path("mine").rglob("*")] == [".jobs", "overrides"]


class Broken(pl.Callback):
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        1 / 0  # noqa: B018
