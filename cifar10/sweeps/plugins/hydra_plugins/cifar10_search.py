"""Hydra's way in to the search: it finds sweepers in the namespace package `hydra_plugins` only."""

from collections.abc import Sequence
from typing import Literal

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Search(Sweeper):
    """Choose the settings of each job from the results of those before it, with Optuna.

    params: swept overrides, by key, that are searched unless others are given on the command line.
    n_trials: of the whole study, resumed or not; failed and pruned ones count.
    n_jobs: how many trials are chosen at a time, for the launcher to run side by side; None: as many as the launcher's
    own n_jobs, else one.
    objective: a validation metric of the best checkpoint, such as val/acc, or another number in run.json, such as
    seconds; several: what no trial beats in all of them is searched (the Pareto front).
    sampler: tpe (Bergstra et al. 2011; Optuna's multivariate TPESampler) or random.
    startup_trials: drawn at random before tpe begins.
    seed: of the search; that of the runs is the setting `seed`.
    """

    def __init__(
        self,
        params: dict[str, str] | None = None,
        n_trials: int = 20,
        n_jobs: int | None = None,
        objective: str | list[str] = "val/acc",
        sampler: Literal["tpe", "random"] = "tpe",
        startup_trials: int = 8,
        seed: int = 0,
    ):
        self.params, self.n_trials, self.n_jobs, self.seed = params or {}, n_trials, n_jobs, seed
        self.objective, self.sampler, self.startup_trials = objective, sampler, startup_trials

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[object]:
        from cifar10.sweeps.search import search

        return search(self, arguments)
