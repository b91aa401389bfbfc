"""Several processes that train together give the answer of one: the same images, decisions, weights and files."""

import csv
import json
import signal
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from cifar10.errors import UserError
from cifar10.training import checks
from tests import seen
from tests.launching import PROJECT, by_lightning, by_srun, by_torchrun, can_make_hosts, on_two_hosts

# Numbers that nothing divides: 163 images in batches of 27 and 28, 37 to validate in batches of 9 and 10. In double
# precision: in single one, a rounding error decides every few steps which of two pixels is the maximum of a pool.
ODD = ["data.val_size=37", "data.batch_size=31", "data.eval_batch_size=10", "trainer.max_epochs=2",
       "trainer.precision=64-true"]  # fmt: skip
CNN = ["model.optimizer=sgd", "model.lr=0.05", "model.network.dropout=0"]
PHASES = ["model=efficientnet_b0", "model.pretrained=false", "model.optimizer=sgd", "model.dropout=0", "model.lr=0.01"]
CASES = {
    "a CNN": [*CNN, "trainer.checkpoint_every_n_steps=4"],
    "mixup, cutmix, cutout, crops": [*CNN, "data.mixup_alpha=1", "data.cutmix_alpha=1", "data.cutout=8",
                                     "data.crop_padding=4", "data.flip=true"],
    "two phases that switch early": [*PHASES, "model.backbone=test_vit", "data.image_size=64", "model.lr=3.0",
                                     "trainer.max_epochs=4", "callbacks.two_phase.head_epochs=3",
                                     "callbacks.two_phase.patience=1"],
    "two phases from cached features": [*PHASES, "model.backbone=test_convnext", "data.image_size=64",
                                        "callbacks.two_phase.head_epochs=1", "callbacks.feature_caching.views=2"],
}  # fmt: skip


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def state(run: Path, name: str) -> dict:
    return torch.load(run / "checkpoints" / name, weights_only=True)


@pytest.mark.slow
@pytest.mark.promise("same answers")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_answer_of_one(command, tiny, tmp_path, record_property, case):
    both = [*tiny, *ODD, *CASES[case]]
    probe = "+callbacks.seen={{_target_: tests.seen.Seen, folder: {}}}"
    assert command("train.py", *both, "hydra.run.dir=one", probe.format("seen_one"), "trainer.accelerator=cpu") == 0
    result = by_lightning(tmp_path, *both, "hydra.run.dir=two", probe.format("seen_two"))
    assert result.returncode == 0, result.stderr
    one, two = tmp_path / "one", tmp_path / "two"

    (alone, _), (shared, processes) = seen.read(tmp_path / "seen_one", 1), seen.read(tmp_path / "seen_two", 2)
    assert shared.keys() == alone.keys()
    for stage, inputs in shared.items():
        assert set(inputs.values()) == {1} and len(inputs) == (163 if stage.startswith("train") else 37), stage
        assert inputs == alone[stage] or "cached" in case, "of another batch a network makes other bits"
    record_property("tried", f"{case}: every image seen once an epoch")

    assert sum(process["counted"] for process in processes) == 37
    assert processes[0]["metrics"] == processes[1]["metrics"]
    assert len(rows(two)) == len(rows(one))
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=2e-6)
    record_property("tried", f"{case}: the metrics of one process")
    if "early" in case:
        assert [row["phase"] for row in rows(two)] == [1, 1, 2, 2]

    assert state(two, "best.ckpt")["epoch"] == state(one, "best.ckpt")["epoch"]
    for name in ("best.ckpt", "last.ckpt"):
        for key, value in state(one, name)["state_dict"].items():
            torch.testing.assert_close(state(two, name)["state_dict"][key], value, rtol=1e-5, atol=1e-7)
    record_property("tried", f"{case}: the weights of one process")

    assert {file.relative_to(two).parent / file.name.split(".1")[0] for file in two.rglob("*")} == {
        file.relative_to(one).parent / file.name.split(".1")[0] for file in one.rglob("*")
    }
    assert [result.stdout.count(line) for line in ("loading PyTorch", "DRAWN IMAGES", "epoch 2/", "done\n")] == [1] * 4
    assert "Warning" not in result.stderr and "Traceback" not in result.stderr, result.stderr
    record_property("tried", f"{case}: written and said once")


@pytest.mark.slow
@pytest.mark.promise("same answers")
def test_two_processes_with_batch_normalisation_give_the_same_bits_twice(tiny, tmp_path):
    B0 = [*PHASES, "model.backbone=test_efficientnet", "data.image_size=32", "model.dropout=0.3", "model.drop_path=0.2"]
    phases = [
        "callbacks.two_phase.head_epochs=0",
        "callbacks.two_phase.unfreeze_fraction=0.6",
        "callbacks.two_phase.lr=0.3",
    ]
    for name in ("one", "two"):
        arguments = [*tiny, *ODD[:-1], *B0, *phases, "trainer.deterministic=true", f"hydra.run.dir={name}"]
        result = by_lightning(tmp_path, *arguments)
        assert result.returncode == 0, result.stderr
        run = tmp_path / name
        losses = [row["val/loss"] for row in rows(run)]
        best = json.loads((run / "run.json").read_text())["val/loss"]
        assert best == pytest.approx(min(losses), abs=1e-6), "the first process's network is the one that is scored"
    one, two = (state(tmp_path / name, "last.ckpt")["state_dict"] for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.promise("same answers")
def test_a_head_in_closed_form_that_two_processes_resume_counts_every_image_once(tiny, tmp_path):
    closed_form = "+callbacks.closed_form_head={_target_: cifar10.callbacks.closed_form_head.ClosedFormHead}"
    both = [*tiny, *ODD, *PHASES, "model.backbone=test_convnext", "data.image_size=64",
            "callbacks.two_phase.head_epochs=2", "callbacks.two_phase.patience=null", closed_form]  # fmt: skip
    assert by_lightning(tmp_path, *both, "hydra.run.dir=whole").returncode == 0
    stops = f"{{_target_: tests.launching.Signals, folder: sent, signals: [[9, 0, {signal.SIGTERM:d}]]}}"
    half = by_lightning(tmp_path, *both, "hydra.run.dir=half", f"+callbacks.stops={stops}")
    assert half.returncode == 128 + signal.SIGTERM, "in the middle of the second epoch"
    result = by_lightning(tmp_path, "resume=half", f"+callbacks.stops={stops}")
    assert result.returncode == 0, result.stderr
    assert difference(tmp_path / "half", tmp_path / "whole") < 1e-7


def four_by_lightning(folder, *arguments):
    return by_lightning(folder, *arguments, devices=4)


@pytest.fixture(scope="module")
def alone(shapes_root, tmp_path_factory):
    """A run of one process, and its arguments."""
    folder = tmp_path_factory.mktemp("alone")
    small = ["data=shapes", f"data.root={shapes_root}", "trainer.enable_progress_bar=false", *ODD, *CNN]
    result = by_lightning(folder, *small, "hydra.run.dir=run", devices=1)
    assert result.returncode == 0, result.stderr
    return folder / "run", small


def difference(run, other):
    """The largest difference between two runs' last weights."""
    ours, theirs = (state(each, "last.ckpt")["state_dict"] for each in (run, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[key].double() - theirs[key].double()).abs().max()) for key in ours)


@pytest.mark.slow
@pytest.mark.promise("same answers")
@pytest.mark.parametrize("start", [four_by_lightning, by_torchrun, by_srun, on_two_hosts])
def test_however_processes_are_started_they_end_where_one_does_in_one_folder(alone, tmp_path, record_property, start):
    if start is on_two_hosts and not can_make_hosts():
        pytest.skip("two hosts on one machine take root, and the command ip")
    run, small = alone
    result = start(tmp_path, *small)
    assert result.returncode == 0, result.stderr
    [folder] = tmp_path.glob("outputs/cnn/*")
    assert difference(folder, run) < 1e-7
    assert [result.stdout.count(line) for line in ("loading PyTorch", "DRAWN IMAGES", "epoch 2/", "done\n")] == [1] * 4
    record_property("tried", f"{start.__name__}: the weights of one process, written and said once")


@pytest.mark.slow
@pytest.mark.promise("same answers")
def test_a_run_killed_and_resumed_on_another_number_of_processes_ends_where_one_does(alone, tmp_path, record_property):
    run, small = alone
    dies = f"signals: [[7, null, {signal.SIGKILL:d}], [9, 0, {signal.SIGTERM:d}]]"
    dies = f"+callbacks.dies={{_target_: tests.launching.Signals, folder: sent, {dies}}}"
    killed = by_lightning(tmp_path, *small, dies, "trainer.checkpoint_every_n_steps=4", "hydra.run.dir=run")
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    stopped = by_lightning(tmp_path, "resume=run", dies, devices=1)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    resumed = by_lightning(tmp_path, "resume=run", dies, devices=4)
    assert resumed.returncode == 0, resumed.stderr
    assert difference(tmp_path / "run", run) < 1e-7
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [0, 1]
    record_property("tried", "2 processes killed, resumed with 1, stopped, resumed with 4")


@pytest.mark.slow
@pytest.mark.parametrize("start, slowly", [(by_lightning, False), (by_lightning, True), (by_torchrun, False)])
def test_a_process_that_dies_ends_the_others_with_a_line(alone, tmp_path, start, slowly):
    ends = ["+callbacks.ends={_target_: tests.launching.EndsSlowly}"] * slowly
    dies = f"+callbacks.dies={{_target_: tests.launching.Signals, folder: sent, signals: [[4, 1, {signal.SIGKILL:d}]]}}"
    begun = time.monotonic()
    result = start(tmp_path, *alone[1], *ends, dies)
    assert result.returncode != 0 and time.monotonic() - begun < 200, "it neither ends well nor hangs"
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "lost another process" in told[0], result.stderr


@pytest.mark.slow
@pytest.mark.promise("sweeps")
def test_a_process_that_dies_fails_its_job_alone(alone, tmp_path):
    dies = f"+callbacks.dies={{_target_: tests.launching.Signals, folder: sent, signals: [[4, 1, {signal.SIGKILL:d}]]}}"
    own = [argument for argument in alone[1] if not argument.startswith("hydra.run.dir")]
    result = by_lightning(tmp_path, "-m", *own, "seed=0,1", "hydra.sweep.dir=sweep", dies)
    assert result.returncode == 1 and "lost another process" in result.stderr, result.stderr
    assert not (tmp_path / "sweep/0/run.json").exists() and (tmp_path / "sweep/1/run.json").is_file()


@pytest.mark.slow
@pytest.mark.promise("same answers")
def test_a_network_in_shards_ends_where_one_process_does_and_its_checkpoint_is_whole(tiny, command, tmp_path):
    backbone = ["model.backbone=test_vit", "data.image_size=64", "callbacks.two_phase.head_epochs=1"]
    both = [*tiny, *ODD, *PHASES, *backbone, "trainer.precision=32-true"]  # shards have no double precision
    assert command("train.py", *both, "hydra.run.dir=one", "trainer.accelerator=cpu") == 0, command.err
    result = by_lightning(tmp_path, *both, "trainer=fsdp", "hydra.run.dir=shards")
    assert result.returncode == 0, result.stderr
    assert difference(tmp_path / "shards", tmp_path / "one") < 1e-5
    result = by_lightning(tmp_path, "resume=shards", "trainer.max_epochs=3")
    assert result.returncode == 0, result.stderr
    assert (
        command("train.py", "resume=shards", "trainer.max_epochs=4", "trainer.devices=1", "trainer.strategy=auto") == 0
    ), command.err
    assert command("evaluate.py", "run=shards") == 0, command.err


@pytest.mark.promise("bad inputs")
def test_several_hosts_without_a_launcher_are_refused(command, tiny):
    assert command("train.py", *tiny, "trainer=ddp", "trainer.accelerator=cpu", "trainer.num_nodes=2") == 1
    assert command.err == "error: trainer.num_nodes=2: start it with torchrun or srun, see docs/cluster.md\n"
    assert command("train.py", *tiny, "trainer=ddp", "trainer.num_nodes=0") == 1
    assert command.err == "error: trainer.num_nodes=0: must be a whole number from 1 up\n"


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
def test_a_batch_too_small_for_two_processes_is_refused_before_they_start(command, tiny, tmp_path, key):
    two = ["trainer.accelerator=cpu", "trainer.devices=2"]
    assert command("train.py", *tiny, *two, f"data.{key}=3") == 1
    assert command.err.splitlines() == [
        f"error: data.{key}=3: fewer than two images for each of 2 processes; set 4 or more, or use fewer processes"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.promise("bad inputs")
def test_a_mistake_that_both_processes_meet_is_told_in_one_line(tiny, tmp_path):
    nowhere = "+callbacks.two_phase._target_=cifar10.callbacks.two_phase.TwoPhaseFineTuning"  # the CNN has no backbone
    result = by_lightning(tmp_path, *tiny, nowhere)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: callbacks.two_phase: ScratchClassifier has no backbone to freeze; remove it"
    ]


def test_only_the_first_process_tries_whether_folders_can_be_written(monkeypatch, tmp_path):
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"output_dir={tmp_path}", "logger.tensorboard.save_dir=/proc/x"])
    with pytest.raises(UserError, match="/proc/x: cannot be written"):
        checks.check_settings(cfg)
    monkeypatch.setattr(checks, "is_worker", True)  # which would remove the folder that the first is trying
    checks.check_settings(cfg)


@pytest.mark.slow
@pytest.mark.promise("sweeps")
@pytest.mark.parametrize("start", [by_lightning, by_torchrun])
def test_a_sweep_of_runs_in_two_processes_has_one_folder_and_one_table(tiny, tmp_path, start):
    result = start(tmp_path, "-m", *tiny, "seed=0,1")
    assert result.returncode == 0, result.stderr
    [sweep] = tmp_path.glob("outputs/*/*")
    assert {path.parent.name for path in sweep.glob("*/run.json")} == {"0", "1"}
    assert [result.stdout.count(text) for text in ("Launching 2 jobs", "sweep of 2 jobs", "done\n")] == [1, 1, 2]
