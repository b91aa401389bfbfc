"""Every pair of a run's choices, for a few steps: see `tests/pairs.py`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cifar10.callbacks.checkpoint import Checkpoint
from cifar10.evaluation import steps
from cifar10.inference.finished_runs import Settings
from cifar10.run_folder import RunFolder
from tests import pairs
from tests.conftest import PROJECT
from tests.killing import differences, outcome

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STEPS = ["data.batch_size=20", "data.eval_batch_size=20", "trainer.max_epochs=3", "trainer.log_every_n_steps=1",
         "callbacks.dashboard.images=0", "callbacks.early_stopping=null"]  # fmt: skip
ROUNDED = {"bf16-mixed", "16-mixed", "cached features"}  # evaluation computes everything, in single precision


@pytest.fixture
def settings_of(tiny, trained, tmp_path):
    """The settings of a row of choices; what learns from a run learns from a copy of `trained`, and writes into it."""
    teacher = shutil.copytree(trained, tmp_path / "teacher")

    def settings(row: list[str]) -> list[str]:
        chosen = [each.replace("TEACHER", str(teacher)) for name in row for each in pairs.CHOICES[name]]
        return [*tiny, *STEPS[: -1 if "CNN" not in row else None], *chosen]

    return settings


def note(record_property, row: list[str]) -> None:
    for pair in pairs.pairs_of(row):
        record_property("pair", " x ".join(sorted(pair)))


def check_evaluation(folder: Path, row: list[str]) -> None:
    """best.ckpt gives what training logged of its epoch, and run.json says."""
    run = RunFolder(folder)
    [(_, found)], _ = steps.open_runs([folder], Settings(accelerator="cpu", tta="flip" if "TTA" in row else None))
    epoch = torch.load(run.best, weights_only=True)["epoch"]
    logged = next(each["val/acc"] for each in run.read_metrics() if each["epoch"] == epoch)
    close = 0.051 if ROUNDED & {*row} else 1e-6
    accuracy = (found.val_logits.argmax(1) == found.val_labels).mean()
    assert float(accuracy) == pytest.approx(logged, abs=close)
    assert run.read_summary()["val/acc"] == pytest.approx(logged, abs=close)
    assert (found.views is not None) == ("TTA" in row)


@pytest.mark.parametrize("row", pairs.covering_rows(), ids=lambda row: ", ".join(row))
def test_choices_of_a_run_work_together(command, settings_of, row, monkeypatch, record_property):
    note(record_property, row)
    settings = settings_of(row)
    assert command("train.py", *settings, "hydra.run.dir=whole") == 0, command.err
    check_evaluation(Path("whole"), row)
    if "resume in mid-epoch" in row:
        with monkeypatch.context() as patched:
            patched.setattr(Checkpoint, "_stop_asked", lambda self, trainer: trainer.current_epoch == 1)
            assert command("train.py", *settings, "hydra.run.dir=stopped") == 143, command.err
        assert command("train.py", "resume=stopped") == 0, command.err
        assert "1 epoch and" in command.out and "batches of the next done" in command.out
        assert differences(outcome(Path("whole")), outcome(Path("stopped"))) == []


def in_two(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command, output = [sys.executable, str(PROJECT / "train.py"), *arguments], (folder / "output.txt").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("row", pairs.IN_TWO_PROCESSES, ids=lambda row: ", ".join(row))
def test_choices_of_a_run_work_together_in_two_processes(command, settings_of, tmp_path, row, record_property):
    note(record_property, row)
    settings = settings_of(row)
    if "CNN" in row:
        settings += ["model.network.dropout=0", "model.optimizer=sgd", "model.lr=0.05"]
    process = in_two(tmp_path, *settings, "hydra.run.dir=two")
    if "resume in mid-epoch" in row:
        last, end = RunFolder(tmp_path / "two").last, time.monotonic() + 200
        while not last.exists() and time.monotonic() < end:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process = in_two(tmp_path, "resume=two")
    assert process.wait(300) == 0, (tmp_path / "output.txt").read_text()
    check_evaluation(tmp_path / "two", row)
    if "CNN" in row:
        assert "batches of the next done" in (tmp_path / "output.txt").read_text()
        alone = [each for each in settings if each != "trainer.devices=2"]
        assert command("train.py", *alone, "hydra.run.dir=one") == 0, command.err
        one, two = (torch.load(RunFolder(tmp_path / name).last, weights_only=True) for name in ("one", "two"))
        for key in ("state_dict", "current_model_state"):
            for name, value in one[key].items():
                torch.testing.assert_close(two[key][name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pair", pairs.REFUSED, ids=lambda pair: " x ".join(sorted(pair)))
def test_choices_that_exclude_each_other_are_refused_in_a_line(command, settings_of, pair, record_property):
    note(record_property, sorted(pair))
    row = [*sorted(pair), *({"two phases"} if not pair & {"CNN", "fast CNN"} and "cached features" in pair else ())]
    settings = settings_of(row)
    if "cached features" in pair and "two phases" not in row:
        settings.append("+callbacks.feature_caching._target_=cifar10.callbacks.feature_caching.FeatureCaching")
        settings = [each.replace("callbacks.feature_caching.views", "+callbacks.feature_caching.views")
                    for each in settings]  # fmt: skip
    assert command("train.py", *settings) != 0
    assert pairs.REFUSED[pair] in command.err and len(command.err.splitlines()) == 1, command.err


def test_the_runs_cover_every_pair():
    covered = set(pairs.REFUSED) | pairs.NO_PAIR
    for row in [*pairs.covering_rows(), *pairs.IN_TWO_PROCESSES]:
        covered |= set(pairs.pairs_of(row))
    assert set(pairs.pairs_of(list(pairs.CHOICES))) - covered == set()


def test_the_table_is_of_these_choices():
    expected = dict.fromkeys(pairs.pairs_of(list(pairs.CHOICES)), True)
    assert pairs.TABLE.read_text(encoding="utf-8") == pairs.table(expected), "run pytest --promises tests/test_pairs.py"
