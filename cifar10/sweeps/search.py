"""A search: trials are asked from the study, run as jobs of the sweep, and told what came out.

Several processes may search in one folder, on several hosts: each runs trials of its own, and takes up those of a
process that has died. Begins with `Search.sweep` of the plugin.
"""

import contextlib
import json
import logging
import math
import uuid
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import optuna
from filelock import FileLock
from hydra.core.utils import JobReturn
from omegaconf import DictConfig
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from cifar10.errors import FolderBusy, UserError
from cifar10.files import locked
from cifar10.metric_names import METRICS, mode_of
from cifar10.report.sweep.jobs import SEED
from cifar10.run_folder import RunFolder
from cifar10.sweeps.jobs import NOTES, keep_trials
from cifar10.sweeps.space import Space
from cifar10.sweeps.study import NAME, make_sampler, storage_of, trial_of

log = logging.getLogger(__name__)

OTHER_OBJECTIVES = {"seconds": "min"}  # numbers of run.json that are no metric
ENDED = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def search(own: Any, arguments: Sequence[str]) -> list[JobReturn]:
    """Run trials until there are `n_trials`; returns the last jobs' results, or raises their error if none finished."""
    folder = Path(own.config.hydra.sweep.dir)
    space = Space(with_params(arguments, own.params))
    if not space.parameters:
        raise UserError("nothing to search: give a setting several values, as in model.lr=tag(log,interval(1e-4,1e-2))")
    if any(parameter.key == SEED for parameter in space.parameters):
        raise UserError("seed: a search would choose the luckiest; set one, and train what it finds with other seeds")
    own.n_jobs = own.n_jobs or max(1, own.config.hydra.launcher.get("n_jobs") or 1)
    objectives = check(own)
    keep_trials(own.config.hydra)
    study = open_study(own, folder, objectives)
    results: list[JobReturn] = []
    with searcher(folder) as me:
        while trials := next_trials(study, own, folder, me):
            jobs = {trial.number: space.suggest(trial) for trial in trials}
            # a launcher numbers its jobs consecutively
            for _, run in groupby(enumerate(sorted(jobs)), key=lambda place: place[1] - place[0]):
                numbers = [number for _, number in run]
                results = list(own.launcher.launch([jobs[number] for number in numbers], initial_job_idx=numbers[0]))
                for number, result in zip(numbers, results, strict=True):
                    tell(study, folder, number, objectives, result)
    if results and not study.get_trials(states=(TrialState.COMPLETE, TrialState.RUNNING)):
        for result in results:
            result.return_value  # noqa: B018  raises the job's error
    return results


def with_params(arguments: Sequence[str], params: DictConfig | dict) -> list[str]:
    """The overrides with what the recipe searches of the settings not fixed by them, unless they say what to search."""
    space = Space(arguments)
    added = {} if space.parameters else {key: value for key, value in params.items() if key not in space.values}
    return [*arguments, *(f"{key}={value}" for key, value in added.items())]


def check(own: Any) -> dict[str, str]:
    """The objectives with their directions, maximize or minimize; UserError for settings that cannot work."""
    for name in ("n_trials", "n_jobs"):
        value = getattr(own, name)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"hydra.sweeper.{name}={value}: must be a whole number from 1 up")
    names = [own.objective] if isinstance(own.objective, str) else list(own.objective)
    known = {name: mode_of(name) for name in METRICS if name.startswith("val/")} | OTHER_OBJECTIVES
    for name in names:
        if name not in known:
            raise UserError(f"hydra.sweeper.objective={name}: no such objective; available: {', '.join(known)}")
        if name.startswith("val/") and own.config.data.get("val_size") == 0:
            raise UserError(f"hydra.sweeper.objective={name}: needs validation images, of which data.val_size=0 leaves"
                            " none; set a larger data.val_size")  # fmt: skip
    if own.sampler not in ("tpe", "random"):
        raise UserError(f"hydra.sweeper.sampler={own.sampler}: must be tpe or random")
    if own.config.trainer.get("fast_dev_run"):
        raise UserError("trainer.fast_dev_run: a trial run has no result to search by; leave -m and sweep= out")
    if pruning := own.config.callbacks.get("pruning"):
        if not isinstance(pruning, DictConfig):
            raise UserError(f"callbacks.pruning={pruning}: is a section; choose it by sweep=median or sweep=hyperband")
        if len(names) > 1 or not names[0].startswith("val/"):
            raise UserError(
                "callbacks.pruning: needs a single objective of validation; set callbacks.pruning=null, or search one"
            )
        least, epochs = pruning.get("min_epochs", 1), own.config.trainer.max_epochs
        if isinstance(least, int) and isinstance(epochs, int) and least >= epochs:
            raise UserError(
                f"callbacks.pruning.min_epochs={least}: with trainer.max_epochs={epochs} no trial would be ended; lower"
                " the one, raise the other, or set callbacks.pruning=null"
            )
    return {name: "maximize" if known[name] == "max" else "minimize" for name in names}


def open_study(own: Any, folder: Path, objectives: dict[str, Any]) -> optuna.Study:
    """The study in the sweep's folder, as it stands; a new one if there is none."""
    study = optuna.create_study(
        study_name=NAME,
        storage=storage_of(folder),
        directions=[*objectives.values()],
        sampler=make_sampler(own.sampler, own.seed, own.startup_trials, own.n_jobs),
        load_if_exists=True,
    )
    study.set_metric_names(list(objectives))
    return study


@contextlib.contextmanager
def searcher(folder: Path) -> Iterator[str]:
    """The name of this process among those that search in the folder: a lock, held until it ends, however it does."""
    name = f"searcher-{uuid.uuid4().hex[:8]}.lock"
    with locked(folder / NOTES / name):
        yield name


def is_alive(folder: Path, name: str | None) -> bool:
    """Whether a process that searches in the folder still runs."""
    if name is None or not (folder / NOTES / name).exists():
        return False
    try:
        with locked(folder / NOTES / name, busy="it runs"):
            return False
    except FolderBusy:
        return True


def next_trials(study: optuna.Study, own: Any, folder: Path, me: str) -> list[Trial]:
    """The trials to run now: those that a dead process has left, else new ones; none when there are enough."""
    with FileLock(folder / NOTES / "search.lock"):  # two processes must not take up the same trial
        known = study.get_trials(deepcopy=False)
        left = [
            trial
            for trial in known
            if trial.state == TrialState.RUNNING and not is_alive(folder, trial.user_attrs.get("searcher"))
        ]
        trials = [trial_of(study, trial) for trial in left[: own.n_jobs]]
        trials = trials or [study.ask() for _ in range(min(own.n_jobs, own.n_trials - len(known)))]
        for trial in trials:
            trial.set_user_attr("searcher", me)
        return trials


def tell(study: optuna.Study, folder: Path, number: int, objectives: dict[str, str], result: JobReturn) -> None:
    """Tell the study how a trial ended, by its job's note and its run's figures."""
    note = json.loads((folder / NOTES / f"{number}.json").read_text())
    state = ENDED.get(note["status"])
    if state is None:  # another process has its folder
        result.return_value  # noqa: B018  raises the reason
        raise UserError(f"job {number} has not ended")
    values = None
    if state is TrialState.COMPLETE:
        figures = RunFolder(folder / note["folder"]).read_summary()
        values = [float(figures.get(name, math.nan)) for name in objectives]
        log.info(describe(study, number, dict(zip(objectives, values, strict=True))))
    else:
        log.info(f"trial {number} {note['status']}: {note['error']}")
    if values is not None and not all(map(math.isfinite, values)):
        values, state = None, TrialState.FAIL
    study.tell(number, values, state=state)


def describe(study: optuna.Study, number: int, values: dict[str, float]) -> str:
    """One line: what came out, and what has been best so far."""
    text = f"trial {number}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    best = best_before(study)
    if best is None:
        return text
    [value], known = values.values(), cast(float, best.value)
    better = value > known if study.direction is StudyDirection.MAXIMIZE else value < known
    before = f"{known:.4g} in trial {best.number}"
    return f"{text}, a new best (before: {before})" if better else f"{text}; best: {before}"


def best_before(study: optuna.Study) -> FrozenTrial | None:
    if len(study.directions) > 1 or not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return None
    return study.best_trial
