"""Loggers beside TensorBoard: each holds a run's figures, offline, in sweeps, after a resume and after a kill."""

import csv
import json
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning_utilities.core.imports import RequirementCache
from omegaconf import OmegaConf

from cifar10.run_folder import RunFolder
from cifar10.training.loggers import PACKAGES
from cifar10.untrusted import override_fault
from tests.conftest import PROJECT
from tests.killing import start, train

pytestmark = pytest.mark.filterwarnings("ignore")
History = dict[str, list[tuple[int, float]]]  # (step, value) by metric


def need(*names: str) -> None:
    for name in names:
        if name in PACKAGES and not RequirementCache(PACKAGES[name]):
            pytest.skip(f"{PACKAGES[name]} is not installed")


def from_csv(run: Path) -> History:
    history: History = {}
    for file in sorted((run / "csv").glob("version_*/metrics.csv")):
        with file.open() as table:
            for row in csv.DictReader(table):
                for name in row.keys() - {"step"}:
                    if row[name]:
                        history.setdefault(name, []).append((int(row["step"]), float(row[name])))
    return history


def wandb_records(file: Path) -> list:
    """The records of an offline run: blocks of 32 KiB, in which each piece has a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole record, or its last piece
            found.append(Record.FromString(record))
            record = b""
    return found


def items(records: list) -> list:
    return [item for record in records for item in record.history.item]


def from_wandb(run: Path) -> History:
    history: History = {}
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(file):
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name in row.keys() - {"trainer/global_step"}:
                if not name.startswith("_"):
                    history.setdefault(name, []).append((row["trainer/global_step"], row[name]))
    return history


def mlflow_run(run: Path):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{Path.cwd()}/outputs/mlflow.db")  # it keeps a store by its name
    found = client.search_runs([client.get_experiment_by_name("cifar10").experiment_id])
    (ours,) = [one for one in found if one.info.run_name.endswith(run.name)]
    return client, ours


def from_mlflow(run: Path) -> History:
    client, ours = mlflow_run(run)
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(ours.info.run_id, name)]
        for name in ours.data.metrics
    }


def from_trackio(run: Path) -> History:
    from trackio.sqlite_storage import SQLiteStorage

    history: History = {}
    for row in SQLiteStorage.get_logs("cifar10", f"cnn {run.parent.name}/{run.name}"):
        for name in row.keys() - {"step", "timestamp"}:
            history.setdefault(name, []).append((row["step"], row[name]))
    return history


READERS = {"csv": from_csv, "wandb": from_wandb, "mlflow": from_mlflow, "trackio": from_trackio}


def assert_holds(history: History, run: Path) -> None:
    """Each epoch's figures, and none that contradicts another of its step."""
    for row in RunFolder(run).read_metrics():
        for name in ("train/loss", "val/loss", "val/acc"):
            values = {value for step, value in history[name] if step == row["step"]}
            assert len(values) == 1 and values.pop() == pytest.approx(row[name], abs=1e-5), (name, row["step"])
    assert history["best/val/acc"] and history["lr/network"]


@pytest.fixture
def offline(monkeypatch):
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", READERS)
def test_a_sweep_and_a_resumed_run_have_their_figures_in(name, command, tiny, offline):
    need(name)
    sweep = Path("outputs/sweeps/mine")
    arguments = [f"logger={name}", "tags=[baseline]", "seed=0,1", f"hydra.sweep.dir={sweep}"]
    assert command("train.py", "-m", *tiny, *arguments) == 0, command.err
    assert command.out.count("  curves  ") == 2 and "tensorboard" not in command.out
    assert "wandb:" not in command.err and "INFO mlflow" not in command.err
    assert command("train.py", f"resume={sweep}/1", "trainer.max_epochs=2") == 0, command.err
    for job, epochs in ((0, 1), (1, 2)):
        assert len(RunFolder(sweep / str(job)).read_metrics()) == epochs
        assert_holds(READERS[name](sweep / str(job)), sweep / str(job))
    assert not (sweep / "0" / "tensorboard").exists()


def test_a_killed_run_shows_its_settings_and_is_whole_once_resumed(tmp_path, shapes_root, offline, monkeypatch):
    need("wandb", "mlflow")
    run = ["data=shapes", f"data.root={shapes_root}", "data.batch_size=80", "trainer.max_epochs=2"]
    loggers = ["logger=[csv,wandb,mlflow]", "tags=[baseline]", "hydra.run.dir=run"]
    process = start(tmp_path, *run, *loggers, kill="waits in a step #4")
    monkeypatch.chdir(tmp_path)
    until, records = time.monotonic() + 100, []
    while not any(item.key == "val/acc" or item.nested_key == ["val/acc"] for item in items(records)):
        assert process.is_alive() and time.monotonic() < until, Path("output.txt").read_text()
        time.sleep(0.1)  # wandb writes five times a second; what is younger is lost in a kill
        records = [one for file in Path("run/wandb").glob("offline-run-*/*.wandb") for one in wandb_records(file)]
    process.kill()
    process.join()
    told = next(record.run for record in records if record.run.run_id)
    assert (told.display_name, told.run_group, list(told.tags)) == ("cnn run", "run", ["baseline"])
    settings = {item.key for record in records for item in record.config.update}
    assert {"seed", "data.batch_size", "model.lr"} <= settings
    _, ours = mlflow_run(Path("run"))
    assert ours.info.status == "RUNNING" and ours.data.params["seed"] == "0"
    assert ours.data.tags["baseline"] == "true" and ours.data.tags["group"] == "run"
    assert train(tmp_path, "resume=run") == 0, Path("output.txt").read_text()
    for name in ("csv", "wandb", "mlflow"):
        assert_holds(READERS[name](Path("run")), Path("run"))
    _, ours = mlflow_run(Path("run"))
    assert ours.info.status == "FINISHED"


def test_tensorboard_keeps_its_pictures_beside_another_logger(command, tiny):
    assert command("train.py", *tiny, "logger=[csv,tensorboard]", "hydra.run.dir=run") == 0, command.err
    events = b"".join(file.read_bytes() for file in Path("run/tensorboard").rglob("events*"))
    assert b"images as the network sees them" in events and b"confusion matrix" in events


MISTAKES = {
    "a package that is missing": (["logger=wandb"], "logger=wandb: needs wandb>=999; pip install -e '.[wandb]'"),
    "an unknown logger": (["logger=tensorbord"], "logger=tensorbord: no such choice; logger has: csv, "),
    "a value for a logger": (["logger.tensorboard=1"], "logger.tensorboard=1: is a section"),
    "text for tags": (["tags=baseline"], "tags=baseline: must be a list of text"),
    "a folder that cannot be written": (["logger=csv", "logger.csv.save_dir=/proc/x"], "logger.csv.save_dir=/proc/x"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_any_training(mistake, command, tiny, monkeypatch):
    monkeypatch.setitem(PACKAGES, "wandb", "wandb>=999")
    arguments, message = MISTAKES[mistake]
    assert command("train.py", *tiny, *arguments, "hydra.run.dir=run") == 1
    assert message in command.err and len(command.err.splitlines()) == 1 and not Path("run").exists()


def test_an_argument_that_wandb_does_not_know_is_one_line(command, tiny):
    need("wandb")
    assert command("train.py", *tiny, "logger=wandb", "+logger.wandb.colour=red") == 1
    assert command.err.startswith("error: logger.wandb.colour: wandb.init has no such setting")


def test_a_logger_of_ones_own_folder_of_settings(command, tiny, tmp_path):
    file = tmp_path / "mine" / "logger" / "table.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "table:\n  _target_: pytorch_lightning.loggers.CSVLogger\n  save_dir: ${output_dir}\n  name: mine\n"
    )
    arguments = ["--config-dir", "mine", "logger=[table,tensorboard]", "hydra.run.dir=run"]
    assert command("train.py", *tiny, *arguments) == 0, command.err
    assert Path("run/mine/version_0/metrics.csv").is_file() and Path("run/tensorboard").is_dir()


def test_a_run_stored_with_one_logger_as_its_section_is_resumed_and_evaluated(command, trained, tmp_path):
    shutil.copytree(trained, "run")
    file = RunFolder("run").config
    cfg = OmegaConf.load(file)
    cfg.logger = {"_target_": "cifar10.callbacks.dashboard.StageLogger", "save_dir": "${output_dir}/tensorboard"}
    del cfg.tags
    OmegaConf.save(cfg, file)
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0, command.err
    assert command("evaluate.py", "run=run", "accelerator=cpu") == 0, command.err


def test_a_stored_setting_names_no_server():
    assert "names a server" in override_fault("logger.mlflow.tracking_uri=http://example.org")
    assert override_fault("logger.mlflow.experiment_name=mine") == ""


def test_no_package_is_imported_unless_its_logger_is_asked_for():  # wandb is: by timm, wherever it is installed
    code = "import cifar10.training.build, sys; print({'mlflow', 'trackio'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"
