"""cifar10.sweeps.summary: what a sweep says of itself at its end, from made-up jobs and from real ones."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cifar10.signals import Interrupted
from cifar10.sweeps import summary as sweep

LONG = "'" + "x" * 100 + "'"


def write_job(folder: Path, number: int, overrides: dict, status: str = "finished", **figures: float) -> None:
    """A job as it lies in a sweep's folder when it has ended."""
    note = {"job": number, "status": status, "error": "", "overrides": overrides, "folder": str(number)}
    if status == "failed":
        note["error"] = f"seed={number}: cannot be"
    for name, content in ((f".jobs/{number}.json", note), (f"{number}/run.json", figures)):
        (folder / name).parent.mkdir(exist_ok=True)
        if content:
            (folder / name).write_text(json.dumps(content))


def figures(acc: float, loss: float = 0.5) -> dict[str, float]:
    return {"val/acc": acc, "val/loss": loss, "seconds": 3725.4, "epochs": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models with three seeds each, of which one failed and one has not ended, and a model that diverged."""
    settings = {"experiment": "laptop", "model.weights": LONG}
    write_job(tmp_path, 0, settings | {"model": "cnn", "seed": "0"}, **figures(0.70))
    write_job(tmp_path, 1, settings | {"model": "cnn", "seed": "1"}, **figures(0.75))
    write_job(tmp_path, 2, settings | {"model": "cnn", "seed": "2"}, "failed", **figures(0.99))
    write_job(tmp_path, 3, settings | {"model": "b0", "seed": "0"}, **figures(0.95))
    write_job(tmp_path, 4, settings | {"model": "b0", "seed": "1"}, "unfinished")
    write_job(tmp_path, 5, settings | {"model": "b0", "seed": "2"}, **figures(0.95, loss=0.4))
    write_job(tmp_path, 6, settings | {"model": LONG, "seed": "0"}, **figures(float("nan"), float("nan")))
    return tmp_path


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with a word."""
    lines = [line.split() for line in text.splitlines()]
    start = next(number for number, line in enumerate(lines) if line[:1] == [first])
    indented = [line.startswith("  ") for line in text.splitlines()]
    stop = next(number for number in range(start, len(lines)) if not indented[number])
    return lines[start:stop]


def test_the_best_job_is_first_and_those_without_a_result_last(folder):
    assert [job.number for job in sweep.read_sweep(folder).best_first] == [5, 3, 1, 0, 2, 4, 6]


def test_the_table_names_what_differs_and_one_line_what_all_share(folder):
    text = sweep.describe(sweep.read_sweep(folder), folder)
    header, best, *rows = table(text, "job")
    assert header == ["job", "model", "seed", "val/acc", "val/loss", "time", "epochs"]
    assert best == ["5", "b0", "2", "0.9500", "0.4000", "1:02:05", "8"]
    assert f"all: experiment=laptop model.weights={LONG}" in text.splitlines()
    assert {tuple(row[3:]) for row in rows if row[0] in "24"} == {("failed",), ("unfinished",)}
    assert "job 2 failed: seed=2: cannot be" in text


def test_the_columns_line_up(folder):
    lines = sweep.describe(sweep.read_sweep(folder), folder).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  job"))
    seed = lines[start].index("seed")
    assert [line[seed - 1 : seed + 2].strip() for line in lines[start + 1 : start + 8]] == list("2010210")


def test_a_long_value_is_cut_in_the_table_alone(folder):
    found = sweep.read_sweep(folder)
    assert max(len(cell) for row in table(sweep.describe(found, folder), "job") for cell in row) == sweep.WIDTH
    sweep.write_csv(found, folder / "summary.csv")
    with (folder / "summary.csv").open() as file:
        rows = {row["job"]: row for row in csv.DictReader(file)}
    assert rows["6"]["model"] == rows["0"]["model.weights"] == LONG
    assert {key: rows["0"][key] for key in ("val/acc", "seconds", "seed")} == {
        "val/acc": "0.7", "seconds": "3725.4", "seed": "0"}  # fmt: skip
    assert rows["2"]["status"] == "failed" and rows["2"]["val/acc"] == "", "its run.json is an earlier job's"


def test_seeds_are_summed_up_as_numpy_does_it(folder):
    text = sweep.describe(sweep.read_sweep(folder), folder)
    rows = {row[0]: row[1:] for row in table(text, "model")}
    assert list(rows) == ["model", "b0", "cnn", LONG[: sweep.WIDTH - 3] + "..."]
    assert rows["model"] == ["mean", "sd", "n"]
    assert rows["cnn"] == [f"{np.mean([0.70, 0.75]):.4f}", f"{np.std([0.70, 0.75], ddof=1):.4f}", "2"]
    assert rows["b0"] == ["0.9500", "0.0000", "2"]


def test_there_is_no_table_over_seeds_where_settings_have_one_seed_each(tmp_path):
    write_job(tmp_path, 0, {"model": "cnn", "seed": "0"}, **figures(0.7))
    write_job(tmp_path, 1, {"model": "b0", "seed": "0"}, **figures(0.9))
    assert "over seeds" not in sweep.describe(sweep.read_sweep(tmp_path), tmp_path)


def test_a_csv_that_cannot_be_written_whole_leaves_the_earlier_one(folder, monkeypatch):
    (folder / "summary.csv").write_text("earlier")
    monkeypatch.setattr(csv.DictWriter, "writerows", lambda self, rows: next(iter([])))
    with pytest.raises(StopIteration):
        sweep.write_csv(sweep.read_sweep(folder), folder / "summary.csv")
    assert (folder / "summary.csv").read_text() == "earlier"


def test_the_summary_needs_neither_torch_nor_lightning():
    heavy = "{'torch', 'pytorch_lightning', 'numpy'}"
    code = f"import sys, cifar10.commandline.command, cifar10.sweeps.summary; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def read_csv(folder: Path) -> list[dict]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_with_its_table_also_where_a_job_failed(command, tiny, tmp_path):
    quick = [*tiny, "logger=null", "callbacks.dashboard=null", "hydra.sweep.dir=outputs/mine"]
    assert command("train.py", "-m", *quick, "data.image_size=32,8", "seed=0,1") == 1
    assert "all: data=shapes" in command.out and "python evaluate.py 'runs=[outputs/mine]'" in command.out
    assert "outputs/mine/summary.csv" in command.out and "val/acc over seeds" in command.out
    assert "jobs 2, 3 failed: data.image_size=8: 3 blocks need at least 22 pixels" in command.out
    rows = read_csv(tmp_path / "outputs" / "mine")
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    accs = [float(row["val/acc"]) for row in rows[:2]]
    assert accs == sorted(accs, reverse=True) and {row["seed"] for row in rows[:2]} == {"0", "1"}
    best = json.loads((tmp_path / "outputs" / "mine" / rows[0]["folder"] / "run.json").read_text())
    assert best["val/acc"] == accs[0]

    assert command("train.py", "-m", *quick, "seed=1") == 0
    assert [row["seed"] for row in read_csv(tmp_path / "outputs" / "mine")] == ["1"]
    assert "sweep of 1 job," in command.out and "1 more in outputs/mine, from an earlier sweep" in command.out


def test_an_interrupted_sweep_says_what_it_has(command, tiny, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("cifar10.training.run.announce", interrupt)
    assert command("train.py", "-m", *tiny, "seed=0,1", "hydra.sweep.dir=outputs/mine") == 130
    assert [row["status"] for row in read_csv(tmp_path / "outputs" / "mine")] == ["unfinished"]


def test_a_single_run_leaves_no_trace_of_sweeps(command, tiny, tmp_path):
    assert command("train.py", *tiny, "seed=-1") == 1
    assert "sweep" not in command.out and list(tmp_path.iterdir()) == []


def test_more_seeds_of_the_experiment_are_one_argument(command, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar10.training.checks.check_settings", lambda cfg: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("train.py", "experiment=data_efficiency", "model=cnn", "seed=0,1", "hydra.sweep.dir=outputs/mine")
    rows = read_csv(tmp_path / "outputs" / "mine")
    assert len({(row["data.train_size"], row["seed"]) for row in rows}) == len(rows) == 6 * 2
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 failed: ZeroDivisionError: division by zero" in capsys.readouterr().out
