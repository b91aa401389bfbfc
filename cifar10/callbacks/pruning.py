"""Give up a search's trial that falls behind the others."""

from typing import TYPE_CHECKING, Any, Literal

import pytorch_lightning as pl

from cifar10.errors import Pruned
from cifar10.sweeps.study import current_trial

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class Pruning(pl.Callback):
    """After each validation, report the search's objective to its study, and end a hopeless trial; alone, do nothing.

    pruner: "median" ends a trial whose best value so far is worse than the median of the others at the same epoch
    (Golovin et al. 2017, section 3.2.2); "hyperband" keeps the best 1 / `reduction_factor` at growing numbers of
    epochs, in brackets of different patience (Li et al. 2018, section 3).
    startup_trials: of "median": how many must have finished before any is ended.
    min_epochs: trained before a trial may be ended.
    """

    changes_training = False  # a run that finishes is one that was not ended

    def __init__(
        self,
        pruner: Literal["median", "hyperband"] = "median",
        startup_trials: int = 4,
        min_epochs: int = 1,
        reduction_factor: int = 3,
    ):
        for name, value, least in (
            ("startup_trials", startup_trials, 0),
            ("min_epochs", min_epochs, 1),
            ("reduction_factor", reduction_factor, 2),
        ):
            if value < least:
                raise ValueError(f"{name}={value}: must be at least {least}")
        self.pruner, self.startup_trials, self.min_epochs = pruner, startup_trials, min_epochs
        self.reduction_factor = reduction_factor
        self.trial = None

    def make(self, max_epochs: int) -> "BasePruner":
        """Optuna's pruner; its unit of resources is an epoch."""
        from optuna import pruners

        if self.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=self.startup_trials, n_warmup_steps=self.min_epochs)
        return pruners.HyperbandPruner(
            min_resource=self.min_epochs, max_resource=max_epochs, reduction_factor=self.reduction_factor
        )

    def on_fit_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.trial = current_trial(lambda: self.make(trainer.max_epochs))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        reason = self._report(trainer, self.trial) if self.trial is not None else ""
        if trainer.world_size > 1:
            reason = trainer.strategy.broadcast(reason)
        if reason:
            raise Pruned(reason)

    def _report(self, trainer: Any, trial: Any) -> str:
        """Report this epoch's value to the study; returns why the trial is to end, empty if it is not."""
        [name] = trial.study.metric_names
        if name not in trainer.callback_metrics:
            return ""
        value, epochs = float(trainer.callback_metrics[name]), trainer.current_epoch + 1
        trial.report(value, epochs)
        if epochs < trainer.max_epochs and trial.should_prune():
            return f"{name} {value:.4f} after {epochs} of {trainer.max_epochs} epochs ({self.pruner})"
        return ""
