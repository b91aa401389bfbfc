"""A sweep that is killed, interrupted or crashes goes on with `resume=FOLDER`, to the bits of an undisturbed one."""

import csv
import gc
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.models import efficientnet
from cifar10.signals import Interrupted
from cifar10.sweeps import jobs
from cifar10.training import build
from cifar10.training import run as runs
from tests.conftest import PROJECT, TINY_BACKBONE

# runs train.py and kills it, as the system would, in the so-many-th call of a function
KILLER = """
import importlib, os, runpy, signal, sys
script, path, call, *sys.argv[1:] = sys.argv[1:]
module, name, *method = path.split(":")
sys.path.insert(0, os.path.dirname(script))
owner = importlib.import_module(module)
owner, name = (getattr(owner, name), method[0]) if method else (owner, name)
alive, left = getattr(owner, name), int(call)
def deadly(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return alive(*arguments, **options)
setattr(owner, name, deadly)
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""
MOMENTS = {  # and the epochs, of six, that are left to do
    "before the first job is noted": ("cifar10.sweeps.jobs:write_note", 1, 6),
    "in the second job's second epoch": ("cifar10.callbacks.epoch_log:EpochLog:on_train_epoch_start", 4, 3),
    "before the second job's result is noted": ("cifar10.sweeps.summary:write_note", 2, 2),
    "before the last job trains": ("cifar10.training.run:announce", 3, 2),
}
# two epochs of a network that every machine trains in the same bits
SMALL = ["data=shapes", "data.batch_size=80", "trainer.max_epochs=2", "trainer.enable_progress_bar=false",
         "logger=null", "callbacks.dashboard=null", "model.network.widths=[4]", "model.network.hidden=8",
         "model.network.dropout=0"]  # fmt: skip


@pytest.fixture
def small(shapes_root: Path) -> list[str]:
    return [*SMALL, f"data.root={shapes_root}"]


def killed(moment: tuple[str, int], *arguments: str) -> None:
    script = [sys.executable, "-c", KILLER, str(PROJECT / "train.py"), moment[0], str(moment[1])]
    ended = subprocess.run([*script, *arguments], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr


def rows(job: Path) -> list[dict]:
    """The job's epochs, to the last digit of what is learnt, without what its clock said."""
    with (job / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_whole(sweep: Path, undisturbed: Path, count: int = 3) -> None:
    """Every job has finished, with its number, its settings, its epochs and its place in the table."""
    assert sorted(file.parent.name for file in sweep.glob("*/run.json")) == list("0123456789"[:count])
    for number in map(str, range(count)):
        assert rows(sweep / number) == rows(undisturbed / number), f"job {number}"
        settings = [(place / number / ".hydra" / "overrides.yaml").read_text() for place in (sweep, undisturbed)]
        assert settings[0] == settings[1]
        assert yaml.safe_load((sweep / number / ".hydra" / "config.yaml").read_text())["seed"] == int(number)
    with (sweep / "summary.csv").open() as file:
        assert sorted((row["job"], row["status"]) for row in csv.DictReader(file)) == [
            (str(number), "finished") for number in range(count)
        ]


@pytest.fixture(scope="module")
def undisturbed(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of seed=0,1,2 that nothing has happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = [sys.executable, PROJECT / "train.py", "-m", *SMALL, f"data.root={shapes_root}", "seed=0,1,2"]
    subprocess.run([*sweep, f"hydra.sweep.dir={folder}"], check=True, capture_output=True, cwd=folder)
    return folder


@pytest.mark.promise("sweeps")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_sweep_goes_on_to_the_same_bits(command, small, undisturbed, tmp_path, moment):
    path, call, left = MOMENTS[moment]
    killed((path, call), "-m", *small, "seed=0,1,2", "hydra.sweep.dir=outputs/mine")
    (tmp_path / "outputs" / "mine").rename(tmp_path / "moved")
    done = {path: path.read_bytes() for path in tmp_path.glob("moved/*/run.json")}
    assert command("train.py", "resume=moved") == 0, command.err
    assert command.out.count("  train loss ") == left, "no epoch is trained twice"
    assert {path: path.read_bytes() for path in done} == done, "a finished job is not run again"
    assert_whole(tmp_path / "moved", undisturbed)


@pytest.mark.promise("sweeps")
def test_a_sweep_killed_while_it_is_resumed_is_resumed_again(command, small, tmp_path):
    experiment = ["experiment=data_efficiency", "model=cnn", "data.val_size=40", "data.train_size=80", *small]
    killed(("cifar10.training.run:announce", 2), *experiment, "seed=0,1,2", "hydra.sweep.dir='two words'")
    killed(("cifar10.training.run:announce", 2), "resume=two words")
    assert command("train.py", f"resume={tmp_path / 'two words'}") == 0, command.err
    assert command.out.count("results go to") == 1, "the last job alone has not finished"
    assert [len(rows(tmp_path / "two words" / str(number))) for number in range(3)] == [2, 2, 2]
    assert command("train.py", "resume=two words") == 0 and "results go to" not in command.out
    assert "sweep of 3 jobs" in command.out, "a finished sweep shows its table again"


@pytest.mark.promise("sweeps")
def test_an_interrupted_experiment_of_both_models_goes_on(command, small, tmp_path, monkeypatch):
    def offline(name, pretrained, *options):
        return create_backbone(TINY_BACKBONE, False, *options)

    def interrupt(cfg, *arguments):
        if cfg.name == "laptop_efficientnet_b0":
            raise Interrupted(signal.SIGINT)
        announce(cfg, *arguments)

    create_backbone, announce = efficientnet.create_backbone, runs.announce
    monkeypatch.setattr(efficientnet, "create_backbone", offline)
    monkeypatch.setattr(runs, "announce", interrupt)
    common = [one for one in small if not one.startswith("model.")]
    arguments = ["experiment=laptop", *common, "data.val_size=40", "data.image_size=32", "trainer.compile=false"]
    assert command("train.py", *arguments, "hydra.sweep.dir=mine") == 130
    monkeypatch.setattr(runs, "announce", announce)
    assert command("train.py", "resume=mine") == 0, command.err
    assert [json.loads(Path(f"mine/{number}/run.json").read_text())["epochs"] for number in (0, 1)] == [2, 2]
    assert "laptop_efficientnet_b0: " in command.out and "laptop_cnn: " not in command.out


@pytest.mark.promise("sweeps")
def test_a_crash_in_one_job_is_logged_and_the_others_run(command, capsys, small, undisturbed, tmp_path, monkeypatch):
    def broken(cfg, datamodule):
        return build_model(cfg, datamodule) if cfg.seed != 1 else 1 / 0

    build_model = build.build_model
    monkeypatch.setattr(build, "build_model", broken)
    with pytest.raises(ZeroDivisionError):
        command("train.py", "-m", *small, "seed=0,1,2", "hydra.sweep.dir=mine")
    out = capsys.readouterr().out
    assert "job 1 failed: ZeroDivisionError" in out and "python train.py resume=mine" in out
    assert "Traceback" in Path("mine/1/train.log").read_text()
    assert [path.parent.name for path in sorted(tmp_path.glob("mine/*/run.json"))] == ["0", "2"]
    monkeypatch.setattr(build, "build_model", build_model)
    assert command("train.py", "resume=mine") == 0, command.err
    assert_whole(tmp_path / "mine", undisturbed)


@pytest.mark.promise("sweeps")
def test_a_job_that_failed_begins_anew_where_the_data_has_moved_to(command, small, shapes_root, undisturbed):
    nowhere = [one for one in small if not one.startswith("data.root=")]
    assert command("train.py", "-m", *nowhere, "data.root=/proc/x", "seed=0,1", "hydra.sweep.dir=mine") == 1
    assert command("train.py", "resume=mine", f"data.root={shapes_root}") == 0, command.err
    assert all(rows(Path(f"mine/{number}")) == rows(undisturbed / str(number)) for number in (0, 1))


@pytest.mark.promise("sweeps")
def test_a_job_that_failed_late_goes_on_from_its_checkpoint(command, small, undisturbed, tmp_path, monkeypatch):
    def fails(*arguments):
        raise UserError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "validate_best", fails)
        assert command("train.py", "-m", *small, "seed=0,1", "hydra.sweep.dir=mine") == 1
    assert command("train.py", "resume=mine/1") == 0, "on its own, as evaluate.py advises"
    monkeypatch.setattr(runs, "training_seconds", fails)  # which trains nothing
    before = Path("mine/1/run.json").read_text()
    assert command("train.py", "resume=mine") == 1, "job 0 has nothing left to train, but fails again"
    assert "nothing left to train" in command.out and Path("mine/1/run.json").read_text() == before
    assert rows(Path("mine/0")) == rows(undisturbed / "0")


@pytest.mark.promise("sweeps")
def test_jobs_whose_settings_have_changed_are_refused_and_kept_however_often_they_are_resumed(command, small):
    assert command("train.py", "-m", *small, "seed=0,1", "hydra.sweep.dir=mine") == 0, command.err
    file, before = Path("mine", jobs.NOTES, jobs.OVERRIDES), Path("mine/0/run.json").read_text()
    whole = file.read_text()
    for _ in range(2):
        file.write_text(whole.replace("seed=0,1", "seed=5,1"))
        assert command("train.py", "resume=mine") == 1 and "job 0 began with different settings" in command.err
        assert Path("mine/0/run.json").read_text() == before and Path("mine/0/checkpoints/best.ckpt").is_file()


@pytest.fixture
def interrupted(command, small, monkeypatch):
    def interrupt(*arguments):
        raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "announce", interrupt)
        assert command("train.py", "-m", *small, "seed=0,1", "hydra.sweep.dir=mine") == 130
    return Path("mine")


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        pytest.param("seed=0,1,2", "seed=0,1,2: a sweep is resumed as it is", id="more seeds for a resumed sweep"),
        pytest.param("data.root=a,b", "data.root=a,b: a sweep is resumed as it is", id="two roots for a resumed sweep"),
        pytest.param("hydra.sweeper.n_trials=8", "hydra.sweeper.n_trials=8: this sweep", id="trials of a grid"),
        pytest.param("hydra.sweep.dir=x", "hydra.sweep.dir=x: a sweep", id="another folder for a resumed sweep"),
    ],
)
def test_a_sweep_is_resumed_as_it_is(command, interrupted, argument, answer):
    before = sorted(interrupted.rglob("*"))
    assert command("train.py", "resume=mine", argument) == 1
    assert command.err.startswith(f"error: {answer}") and len(command.err.splitlines()) == 1
    assert sorted(interrupted.rglob("*")) == before


@pytest.mark.promise("hostile files")
def test_damaged_notes_of_a_sweep(command, interrupted):
    (interrupted / jobs.NOTES / jobs.OVERRIDES).write_text('["seed=')
    assert command("train.py", "resume=mine") == 1
    assert "mine/.jobs/overrides cannot be read" in command.err and len(command.err.splitlines()) == 1


@pytest.mark.promise("bad inputs")
def test_a_sweep_whose_experiment_has_changed_is_refused(command, interrupted):
    file = interrupted / jobs.NOTES / jobs.OVERRIDES
    file.write_text(file.read_text().replace("seed=0,1", "seed=5,1"))
    assert command("train.py", "resume=mine") == 1
    assert "job 0 began with different settings" in command.err, "and the other job has run"
    assert (interrupted / "1" / "run.json").is_file() and not (interrupted / "0" / "run.json").exists()


@pytest.mark.promise("sweeps")
def test_a_new_sweep_in_the_folder_of_another_takes_nothing_from_it(command, small, tmp_path):
    assert command("train.py", "-m", *small, "seed=0,1", "hydra.sweep.dir=mine") == 0
    killed(
        ("cifar10.training.run:announce", 1), "-m", *small, "seed=0,1", "trainer.max_epochs=3", "hydra.sweep.dir=mine"
    )
    assert command("train.py", "resume=mine") == 0, command.err
    assert [json.loads(Path(f"mine/{number}/run.json").read_text())["epochs"] for number in (0, 1)] == [3, 3]


def test_a_sweep_holds_the_images_of_one_job_at_a_time(command, small):
    def modules():
        return {id(one): one for one in gc.get_objects() if type(one) is CIFAR10DataModule}

    gc.collect()
    gc.disable()  # it comes when it likes
    try:
        before = modules()  # of other tests
        assert command("train.py", "-m", *small, "seed=0,1,2") == 0
        alive = modules().keys() - before.keys()
    finally:
        gc.enable()
    assert len(alive) <= 1
