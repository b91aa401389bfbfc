"""A search finds its trials again after a kill, gives up hopeless ones, outlives failed ones, and can be shared."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

optuna = pytest.importorskip("optuna", reason="needs pip install -e '.[search]'")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from cifar10.callbacks.pruning import Pruning  # noqa: E402
from cifar10.commandline import slurm  # noqa: E402
from cifar10.errors import UserError  # noqa: E402
from cifar10.metric_names import METRICS  # noqa: E402
from cifar10.sweeps.plan import read_plan  # noqa: E402
from cifar10.sweeps.space import Space  # noqa: E402
from cifar10.sweeps.study import NAME, mend, storage_of, study_file  # noqa: E402
from cifar10.training import build  # noqa: E402
from tests.conftest import PROJECT  # noqa: E402
from tests.sweeps.test_resume import SMALL, killed, rows  # noqa: E402

SEARCH = ["-m", "sweep=optuna", "model.lr=tag(log,interval(1e-4,1e-2))", "data.batch_size=80,40",
          "hydra.sweeper.n_trials=4", "hydra.sweeper.startup_trials=2"]  # fmt: skip


@pytest.fixture
def small(shapes_root: Path) -> list[str]:
    return [*SMALL, f"data.root={shapes_root}"]


def trials(sweep: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=NAME, storage=storage_of(sweep)).get_trials()


def table(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "summary.csv").open() as file:
        return {row["job"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def undisturbed(shapes_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train = [sys.executable, str(PROJECT / "train.py"), *SMALL, f"data.root={shapes_root}", *SEARCH]
    subprocess.run([*train, "hydra.sweep.dir=s"], cwd=folder, check=True, capture_output=True)
    return folder / "s"


def test_a_search_runs_its_trials_and_keeps_them_in_its_folder(undisturbed):
    found, results = trials(undisturbed), table(undisturbed)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 4
    assert len({trial.params["model.lr"] for trial in found}) == 4
    for trial in found:
        row, summary = (
            results[str(trial.number)],
            json.loads((undisturbed / f"{trial.number}" / "run.json").read_text()),
        )
        assert row["status"] == "finished" and float(row["model.lr"]) == trial.params["model.lr"]
        assert trial.value == summary["val/acc"]


@pytest.mark.slow
@pytest.mark.promise("kills")
@pytest.mark.promise("sweeps")
@pytest.mark.parametrize(
    "moment",
    [
        ("cifar10.callbacks.epoch_log:EpochLog:on_train_epoch_start", 4),  # in trial 1
        ("cifar10.sweeps.search:tell", 3),  # trial 2 has finished, but the study does not know
        ("cifar10.sweeps.space:suggest", 5),  # trial 2 has been asked for, but has no settings
    ],
    ids=["in mid-training", "before the study is told", "before a trial has its settings"],
)
def test_a_killed_search_resumes_to_the_same_trials(command, small, tmp_path, undisturbed, moment):
    killed(moment, *small, *SEARCH, f"hydra.sweep.dir={tmp_path}/s")
    assert command("train.py", "resume=s") == 0, command.err
    ours, theirs = trials(tmp_path / "s"), trials(undisturbed)
    assert [(trial.params, trial.values, trial.state) for trial in ours] == [
        (trial.params, trial.values, trial.state) for trial in theirs
    ]
    for number in range(4):
        assert rows(tmp_path / f"s/{number}") == rows(undisturbed / f"{number}")


def test_a_finished_search_is_extended_by_resuming_it_with_more_trials(command, small, tmp_path):
    two = [*small, *SEARCH, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=s"]
    assert command("train.py", *two) == 0, command.err
    assert command("train.py", "resume=s", "hydra.sweeper.n_trials=3") == 0, command.err
    assert [trial.number for trial in trials(tmp_path / "s")] == [0, 1, 2]
    assert read_plan(tmp_path / "s" / ".jobs" / "plan").jobs == 3
    kept = json.loads((tmp_path / "s" / ".jobs" / "overrides").read_text())
    assert [one for one in kept if "n_trials" in one] == ["hydra.sweeper.n_trials=3"], "should it be killed"
    assert command("train.py", "resume=s") == 0, command.err
    assert len(table(tmp_path / "s")) == 3, "n_trials is the study's total: nothing was left to do"


def test_a_failed_job_is_a_failed_trial_and_not_the_end(command, small, tmp_path, monkeypatch):
    build_model, calls = build.build_model, []

    def fail_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise UserError("out of luck")
        return build_model(*arguments)

    monkeypatch.setattr(build, "build_model", fail_first)
    assert command("train.py", *small, *SEARCH, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=s") == 0, command.err
    assert [trial.state for trial in trials(tmp_path / "s")] == [TrialState.FAIL, TrialState.COMPLETE]
    assert table(tmp_path / "s")["0"]["error"] == "out of luck" and "job 0 failed: out of luck" in command.out


def test_a_search_whose_every_trial_fails_ends_with_the_reason(command, small):
    wrong = [*small, *SEARCH, "hydra.sweeper.n_trials=2", "model.optimizer=sdg"]
    assert command("train.py", *wrong) == 1
    assert "error: model.optimizer=sdg" in command.err and "Traceback" not in command.err


def test_hopeless_trials_are_given_up_with_their_reason(command, small, tmp_path):
    bad = "model.lr=1e-3,1e-3,1e3"  # what a rate of a thousand makes of a network is seen after an epoch
    search = [*small, "sweep=hyperband", bad, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=9"]
    assert command("train.py", *search, "trainer.max_epochs=3", "hydra.sweep.dir=s") == 0, command.err
    found, results = trials(tmp_path / "s"), table(tmp_path / "s")
    pruned = [trial for trial in found if trial.state == TrialState.PRUNED]
    assert pruned and any(trial.state == TrialState.COMPLETE for trial in found)
    for trial in pruned:
        row = results[str(trial.number)]
        assert row["status"] == "pruned" and row["error"].startswith("val/acc 0.") and "hyperband" in row["error"]
        assert len(rows(tmp_path / f"s/{trial.number}")) == max(trial.intermediate_values) < 3
        assert not (tmp_path / f"s/{trial.number}/run.json").exists()
    again = next(line for line in command.out.splitlines() if "best, other seeds" in line)
    assert "pruning" not in again and "sweep=" not in again, "it trains to the end"
    before = [(trial.params, trial.state) for trial in found]
    assert command("train.py", "resume=s") == 0, command.err
    assert [(trial.params, trial.state) for trial in trials(tmp_path / "s")] == before, "pruned trials stay pruned"


def test_pruning_does_nothing_to_a_run_alone(command, small, tmp_path):
    alone = [*small, "+callbacks.pruning._target_=cifar10.callbacks.pruning.Pruning", "hydra.run.dir=r"]
    assert command("train.py", *alone) == 0, command.err
    assert len(rows(tmp_path / "r")) == 2


def test_several_objectives_are_searched_together(command, small, tmp_path):
    both = [*small, *SEARCH, "hydra.sweeper.n_trials=3", "hydra.sweeper.objective=[val/loss,seconds]"]
    assert command("train.py", *both, "hydra.sweep.dir=s") == 0, command.err
    study = optuna.load_study(study_name=NAME, storage=storage_of(tmp_path / "s"))
    assert study.metric_names == ["val/loss", "seconds"]
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"] and study.best_trials


def test_a_value_on_the_command_line_fixes_a_setting_that_the_recipe_searches(command, small, tmp_path):
    fixed = ["model.lr=5e-4", "model.weight_decay=0", "data.batch_size=40", "hydra.sweeper.n_trials=2"]
    assert command("train.py", *small, "sweep=random", *fixed, "hydra.sweep.dir=s") == 0, command.err
    for job in (0, 1):
        cfg = OmegaConf.load(tmp_path / f"s/{job}/.hydra/config.yaml")
        assert (cfg.model.lr, cfg.model.weight_decay, cfg.data.batch_size) == (5e-4, 0, 40)
    assert [set(trial.params) for trial in trials(tmp_path / "s")] == [{"model.label_smoothing"}] * 2
    again = next(line for line in command.out.splitlines() if "best, other seeds" in line)
    assert "model.lr=5e-4" in again and "model.label_smoothing=0." in again and again.endswith("seed=1,2,3")


def test_a_range_without_a_search_says_what_searches(command, small):
    assert command("train.py", "-m", *small, "model.lr=interval(1e-4,1e-2)") == 1
    assert command.err.splitlines()[-1] == (
        "error: an interval is something to search; add sweep=optuna or sweep=random"
    )


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(
    "wrong, message",
    [
        ("hydra.sweeper.objective=val/auc", f"objective=val/auc: no such objective; available: {METRICS[2]}"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: must be a whole number from 1 up"),
        ("hydra.sweeper.sampler=tea", "hydra.sweeper.sampler=tea: must be tpe or random"),
        ("hydra.sweeper.samplre=tpe", "hydra.sweeper.samplre: no such setting"),
        ("model.lr=tag(lg,interval(1e-4,1e-2))", "lg is no tag of a search"),
        ("model.lr=tag(log,interval(0,1))", "cannot be searched"),
        ("model.lr=interval(2,1)", "the first number must be below the second"),
        ("model.lr=range(1e-4,1e-2)", "the range holds 0.0001 alone"),
        ("seed=1,2", "seed: a search would choose the luckiest"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run: a trial run has no result"),
        (
            "+callbacks.pruning={_target_: cifar10.callbacks.pruning.Pruning, min_epochs: 99}",
            "pruning.min_epochs=99: with trainer.max_epochs=",
        ),
        ("+callbacks.pruning=median", "callbacks.pruning=median: is a section"),
        ('model.lr=tag("model.optimzer=sgd",interval(0,1))', "depends on model.optimzer"),
    ],
)
def test_a_mistake_in_a_search_is_one_line_before_any_trial(command, small, tmp_path, wrong, message):
    assert command("train.py", *small, *SEARCH, wrong) == 1
    assert message in command.err and "Traceback" not in command.err
    assert not list(tmp_path.glob("outputs/sweeps/*")), "nothing is left behind"


def test_a_search_by_validation_needs_images_for_it(command, small, tmp_path):
    unvalidated = [*small, "data.val_size=0", "callbacks.early_stopping=null", "hydra.sweep.dir=s"]
    assert command("train.py", *SEARCH, *unvalidated) == 1
    assert "objective=val/acc: needs validation images" in command.err and len(command.err.splitlines()) == 1
    assert not list(tmp_path.glob("s/*/run.json"))
    assert command("train.py", *SEARCH, *unvalidated, "hydra.sweeper.objective=seconds") == 0


def test_several_objectives_cannot_be_pruned(command, small):
    assert command("train.py", *small, "sweep=median", "hydra.sweeper.objective=[val/acc,seconds]") == 1
    assert "callbacks.pruning: needs a single objective" in command.err


def test_a_trial_is_not_ended_before_it_has_had_its_epochs():
    pruner, study = Pruning(startup_trials=0, min_epochs=3).make(9), optuna.create_study(direction="maximize")
    for value in (0.9, 0.1):
        trial = optuna.trial.Trial(study, study.ask()._trial_id)
        ended = []
        for epoch in range(1, 6):
            trial.report(value, epoch)
            ended.append(pruner.prune(study, study.get_trials(deepcopy=False)[trial.number]))
        study.tell(trial, value)
    assert ended == [False, False, True, True, True]


def test_a_search_that_slurm_requeues_goes_on_in_its_folder(undisturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    slurm.note_file(SEARCH).parent.mkdir(parents=True)
    slurm.note_file(SEARCH).write_text(str(undisturbed))
    assert slurm.earlier_folder(SEARCH) == undisturbed


def test_without_anything_to_search_a_search_says_so(command, small):
    assert command("train.py", *small, "sweep=optuna", "hydra.sweeper.params=null") == 1
    assert "nothing to search" in command.err


@pytest.mark.slow
@pytest.mark.promise("sweeps")
def test_two_processes_share_a_study(small, tmp_path):
    many = [*small, *SEARCH, "hydra.sweeper.n_trials=6", "hydra.sweep.dir=s"]
    train = [sys.executable, str(PROJECT / "train.py")]
    first = subprocess.Popen([*train, *many], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    for line in first.stdout:
        if "loading PyTorch" in line:
            break
    second = subprocess.run([*train, "resume=s"], cwd=tmp_path, capture_output=True, text=True)
    rest = first.communicate()[0]
    assert first.returncode == second.returncode == 0, rest + second.stdout + second.stderr
    found = trials(tmp_path / "s")
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 6
    assert len({trial.user_attrs["searcher"] for trial in found}) == 2, "both did a part"
    assert len(table(tmp_path / "s")) == 6


def test_a_line_that_was_cut_off_does_not_spoil_the_study(undisturbed, tmp_path):
    (tmp_path / ".jobs").mkdir()
    file = study_file(tmp_path)
    whole = study_file(undisturbed).read_bytes()
    file.write_bytes(whole + b'{"op_code": 4, "worker')
    mend(file)
    assert file.read_bytes() == whole
    assert len(trials(tmp_path)) == 4


class Fixed:
    """In place of Optuna's trial: gives the lowest value, or the first choice."""

    def suggest_float(self, name, low, high, **options):
        return low

    suggest_int = suggest_float

    def suggest_categorical(self, name, choices):
        return choices[0]


@pytest.mark.parametrize(
    "override, distribution",
    [
        ("a=interval(1,8)", FloatDistribution(1, 8)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(32,128,step=32)", IntDistribution(32, 96, step=32)),
        ("a=range(8,2,step=-2)", IntDistribution(4, 8, step=2)),
        ("a=range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("a=x,null,1.5", CategoricalDistribution(["x", "null", "1.5"])),
        ("a=choice([1,2],'b c')", CategoricalDistribution(["[1,2]", "b\\ c"])),
    ],
)
def test_hydras_overrides_are_optunas_distributions(override, distribution):
    [parameter] = Space([override]).parameters
    assert parameter.distribution == distribution


def test_a_conditional_setting_is_varied_only_where_its_condition_holds():
    conditional = 'momentum=tag("optimizer=sgd","optimizer=rmsprop","nesterov=true",interval(0.5,0.9))'
    for optimizer, nesterov, there in (
        ("sgd,adam", "true", True),
        ("adam,sgd", "true", False),
        ("sgd,adam", "no", False),
    ):
        space = Space([conditional, f"optimizer={optimizer}", f"nesterov={nesterov}", "+x=1"])
        overrides = space.suggest(Fixed())
        assert ("momentum=0.5" in overrides) is there
        assert overrides[:2] == [f"nesterov={nesterov}", "+x=1"]
