"""A search's study: Optuna's journal in the sweep's folder, which several processes may write to.

The job of a trial has the trial's number. Imports nothing heavy until a study is opened.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

NAME, FILE = "search", "study.log"  # in the sweep's .jobs/


def study_file(sweep: Path) -> Path:
    return sweep / ".jobs" / FILE


def is_search(sweep: Path) -> bool:
    return study_file(sweep).is_file()


def storage_of(sweep: Path) -> "JournalStorage":
    """The sweep's journal; a last line that a kill or a full disk has cut off is removed."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = study_file(sweep)
    lock: Any = FileLock(f"{file}.lock")  # Optuna's own locks outlive a killed process
    with lock:
        mend(file)
    return optuna.storages.JournalStorage(JournalFileBackend(str(file), lock_obj=lock))


def mend(file: Path) -> None:
    """Cut an unfinished last line off; Optuna would take it and the next line for one."""
    if file.is_file():
        with file.open("rb+") as journal:
            content = journal.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                journal.truncate(whole)
                os.fsync(journal.fileno())


def current_trial(pruner: "Callable[[], BasePruner]") -> "Trial | None":
    """The trial whose job this process runs, in a study with this pruner; None if it runs no trial of a search."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    hydra = HydraConfig.get()
    if not is_search(Path(hydra.sweep.dir)):
        return None
    import optuna

    study = optuna.load_study(study_name=NAME, storage=storage_of(Path(hydra.sweep.dir)), pruner=pruner())
    return trial_of(study, study.get_trials(deepcopy=False)[hydra.job.num])


def trial_of(study: "Study", known: "FrozenTrial") -> "Trial":
    """A trial of the study that another process has asked for."""
    from optuna.trial import Trial

    return Trial(study, known._trial_id)  # the only way to one


def make_sampler(name: str, seed: int, startup_trials: int, n_jobs: int) -> "BaseSampler":
    """Optuna's sampler, begun anew for each trial from the seed and the trial's number.

    So the trials of a search that was killed and resumed are those of an undisturbed one.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler

    warnings.simplefilter("ignore", ExperimentalWarning)  # of TPE's `group`, which is wanted

    def make(number: int) -> BaseSampler:
        own = (seed * 1_000_003 + number) % 2**32
        if name == "random":
            return RandomSampler(seed=own)
        return TPESampler(  # jointly, conditional parameters too; with several jobs, those that still run count as bad
            seed=own, n_startup_trials=startup_trials, multivariate=True, group=True, constant_liar=n_jobs > 1
        )

    class SeededByTrial(BaseSampler):
        def before_trial(self, study, trial):
            self.own = make(trial.number)
            self.own.before_trial(study, trial)

        def infer_relative_search_space(self, study, trial):
            return self.own.infer_relative_search_space(study, trial)

        def sample_relative(self, study, trial, search_space):
            return self.own.sample_relative(study, trial, search_space)

        def sample_independent(self, study, trial, param_name, param_distribution):
            return self.own.sample_independent(study, trial, param_name, param_distribution)

    return SeededByTrial()
