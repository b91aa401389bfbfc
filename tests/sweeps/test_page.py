"""sweep.html, from made-up sweeps: what it says, and that odd ones are drawn too."""

import csv
import json
import math
import sys
from pathlib import Path

import pytest

from cifar10.errors import UserError
from cifar10.evaluation.selection import best_of
from cifar10.report.sweep import page
from cifar10.report.sweep.importance import importances
from cifar10.report.sweep.scales import scale_of
from cifar10.sweeps import summary


def make(
    folder: Path, jobs: list[dict], objectives: tuple[str, ...] = ("val/acc",), planned: int | None = None
) -> Path:
    """A sweep's folder; a job: "overrides", and where they are not the usual, "status", "error", "curve", "figures"."""
    (folder / ".jobs").mkdir(parents=True)
    (folder / ".jobs" / "overrides").write_text("[]")
    plan = {"objectives": objectives, "settings": [], "jobs": planned}
    (folder / ".jobs" / "plan").write_text(json.dumps(plan))
    for number, job in enumerate(jobs):
        note = {"job": number, "status": job.get("status", "finished"), "error": job.get("error", ""),
                "overrides": job["overrides"], "folder": str(number)}  # fmt: skip
        (folder / ".jobs" / f"{number}.json").write_text(json.dumps(note))
        (folder / str(number)).mkdir()
        if curve := job.get("curve"):
            with (folder / str(number) / "metrics.csv").open("w", newline="") as file:
                rows = [[epoch, 2.0, value] for epoch, value in enumerate(curve)]
                csv.writer(file).writerows([["epoch", "seconds", "val/acc"], *rows])
        if "figures" in job:
            figures = {"seconds": 10.0, "epochs": 5, "hardware": "an abacus"} | job["figures"]
            (folder / str(number) / "run.json").write_text(json.dumps(figures))
    return folder


def drawn(folder: Path) -> str:
    return page.write(folder / "sweep.html", summary.read_sweep(folder)).read_text()


def grid() -> list[dict]:
    return [
        {"overrides": {"data": "shapes", "model.lr": lr, "model": model, "seed": str(seed)},
         "figures": {"val/acc": 0.5 + 0.1 * place + 0.01 * seed}, "curve": [0.3, 0.4, 0.5 + 0.1 * place]}
        for place, (lr, model) in enumerate([("1e-4", "cnn"), ("1e-3", "b0"), ("1e-2", "cnn"), ("1e-2", "b0")])
        for seed in range(3)
    ]  # fmt: skip


def test_the_page_of_a_grid_names_the_best_setting_over_its_seeds(tmp_path):
    html = drawn(make(tmp_path / "grid", grid()))
    assert "Best: model.lr=1e-2 model=b0, val/acc 0.8100" in html and "over 3 seeds (jobs 9, 10, 11)" in html
    assert "All jobs: data=shapes." in html and "12 jobs, 12 finished" in html
    assert "test images have not been touched" in html and "best=3" in html and "an abacus" in html
    assert all(f'id="figure-{name}"' in html for name in ("settings", "importance", "curves"))


def test_the_page_of_a_study_says_what_was_pruned_when_and_why_and_what_that_saved(tmp_path):
    jobs = grid()
    jobs[1] = {"overrides": jobs[1]["overrides"], "status": "pruned", "error": "below the median", "curve": [0.1, 0.2]}
    jobs[2] = {"overrides": jobs[2]["overrides"], "status": "failed", "error": "model.lr=x: odd"}
    html = drawn(make(tmp_path / "study", jobs, planned=20))
    assert "20 jobs, 10 finished, 1 pruned, 1 failed, 8 left" in html
    assert "1 job failed. 1 job pruned: 1 after 2 epochs." in html and "below the median" in html
    assert "Pruning has saved an estimated 3 epochs, 6.0" in html
    assert "0, 1 (pruned), 2 (failed)" in html, "the setting's other seeds"


def test_settings_that_none_beats_in_everything_are_the_pareto_front(tmp_path):
    points = [(0.9, 30.0), (0.8, 10.0), (0.7, 20.0), (0.95, 40.0)]
    jobs = [{"overrides": {"model.lr": str(place)}, "figures": {"val/acc": acc, "seconds": seconds}}
            for place, (acc, seconds) in enumerate(points)]  # fmt: skip
    folder = make(tmp_path / "two", jobs, ("val/acc", "seconds"))
    assert [setting.jobs[0].number for setting in summary.read_sweep(folder).front] == [3, 0, 1]
    assert 'id="figure-front"' in drawn(folder)


def test_the_objective_decides_what_is_best_in_the_table_the_csv_and_the_page(tmp_path):
    jobs = [{"overrides": {"seed": str(n)}, "figures": {"val/acc": n, "val/loss": 1.0 + n}} for n in range(3)]
    found = summary.read_sweep(make(tmp_path / "loss", jobs, ("val/loss",)))
    assert [job.number for job in found.best_first] == [0, 1, 2]
    assert "lowest val/loss first" in summary.describe(found, tmp_path / "loss")


@pytest.mark.promise("hostile files")
def test_markup_in_settings_and_errors_is_text(tmp_path):
    evil = "<script>alert(1)</script>\n\x1b[2J"
    jobs = [{"overrides": {"name": f"{evil}{n}", evil: str(n)}, "figures": {"val/acc": 0.1 * n}} for n in range(9)]
    jobs.append({"overrides": {"name": evil, evil: "x"}, "status": "failed", "error": evil})
    html = drawn(make(tmp_path / "evil", jobs))
    assert "<script>" not in html and "\x1b" not in html and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param([{"overrides": {}, "figures": {"val/acc": 0.5}}], id="a single job"),
        pytest.param([{"overrides": {"seed": "0"}, "status": "unfinished"}], id="nothing yet"),
        pytest.param([{"overrides": {"a": str(n)}, "figures": {"val/acc": math.nan}} for n in range(9)], id="NaN"),
        pytest.param([{"overrides": {"a": "x"} if n % 2 else {"b": "1"}, "figures": {"val/acc": 0.5}}
                      for n in range(9)], id="equal results, settings that some lack"),
        pytest.param([{"overrides": {"a": f"{n}", "b": f"b{n % 7}"}, "figures": {"val/acc": n / 200},
                       "curve": [n / 200]} for n in range(200)], id="200 jobs"),
    ],
)  # fmt: skip
def test_odd_sweeps_have_a_page(tmp_path, jobs):
    assert "</html>" in drawn(make(tmp_path / "odd", jobs))


def test_without_optuna_the_page_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install -e &#39;.[search]&#39;" in drawn(make(tmp_path / "grid", grid()))


def test_importance_finds_the_setting_that_matters():
    lr = [str(10.0 ** -(n % 4)) for n in range(24)]
    found = importances({"lr": lr, "seed": [str(n % 3) for n in range(24)]}, [-float(n % 4) for n in range(24)])
    assert next(iter(found)) == "lr" and found["lr"] > 0.8


def test_values_that_span_orders_of_magnitude_are_on_a_logarithmic_axis():
    assert scale_of(["1e-4", "1e-3", "1e-2"]).places.tolist() == pytest.approx([0, 0.5, 1])
    assert scale_of(["0.1", "0.2", "0.4"]).kind == "numbers" and scale_of(["1", "b", ""]).kind == "categories"


def test_the_best_settings_are_taken_with_all_their_seeds(tmp_path):
    folders, text = best_of([str(make(tmp_path / "grid", grid()))], 2)
    assert [folder.name for folder in folders] == ["9", "10", "11", "6", "7", "8"]
    assert text.startswith("The best 2 of 4 settings tried, 6 runs with their seeds, by val/acc on validation images.")
    assert len(best_of(str(tmp_path / "grid"), 99)[0]) == 12


def test_settings_that_a_search_has_tried_twice_count_once(tmp_path):
    folders, text = best_of(str(make(tmp_path / "grid", [*grid(), grid()[9]])), 1)
    assert [folder.name for folder in folders] == ["12", "10", "11"] and ", 3 runs with their seeds" in text


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(("runs", "best"), [(None, 3), (["a", "b"], 3), (["nowhere"], 3), (["grid"], 0)])
def test_best_needs_one_sweep_and_a_number_from_1_up(tmp_path, monkeypatch, runs, best):
    make(tmp_path / "grid", grid())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^best={best}: "):
        best_of(runs, best)
