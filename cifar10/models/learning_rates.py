"""Learning rates: a schedule as a pure function of the step, and the torch scheduler that follows it."""

import math
from dataclasses import dataclass
from typing import Any

from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def constant(done: float, total: float) -> float:
    return 1.0


def cosine(done: float, total: float) -> float:
    """One cycle to 0 (Loshchilov & Hutter 2017, section 3)."""
    return 0.5 * (1 + math.cos(math.pi * done / total))


def linear(done: float, total: float) -> float:
    """Straight down to 0; a triangle with a warm-up (Smith & Topin 2018, Page 2018)."""
    return 1 - done / total


# the factor of the peak when `done` of `total` is done
SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear}


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every parameter group at every optimizer step of [first_step, last_step).

    peak: highest rate by group name; groups that are not named stay at 0. kind: a name in `SCHEDULES`, after a linear
    warm-up over the first `warmup`, a fraction of the steps.
    """

    peak: dict[str, float]
    first_step: float
    last_step: float
    kind: str = "constant"
    warmup: float = 0.0

    def at(self, step: int) -> dict[str, float]:
        steps = max(1, self.last_step - self.first_step)
        progress = min(1.0, (step - self.first_step) / steps)
        if progress < self.warmup:
            factor = (progress + 1 / steps) / (self.warmup + 1 / steps)
        else:
            factor = SCHEDULES[self.kind](progress - self.warmup, 1 - self.warmup)
        return {name: peak * factor for name, peak in self.peak.items()}

    @property
    def depends_on_length(self) -> bool:
        return self.kind != "constant" or self.warmup > 0


class ScheduledRates(LRScheduler):
    """Steps through a `Schedule`, which `follow` may replace in mid-run, as two phases do.

    Parameter groups need a "role", the name of their rate. The schedule is not part of the state: it is set when a
    run starts or resumes, so that a longer run is scheduled over its new length.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule):
        self.schedule = schedule
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        rates = self.schedule.at(self.last_epoch)
        return [rates.get(group["role"], 0.0) for group in self.optimizer.param_groups]

    def follow(self, schedule: Schedule) -> None:
        """Use the rates of another schedule from the next step on."""
        self.schedule = schedule
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr: list[float | Tensor] = self.get_lr()

    def state_dict(self) -> dict[str, object]:
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": self._last_lr}


def optimizer_steps(trainer: Any, epochs: float | None = None) -> float:
    """Optimizer steps in a run's first `epochs` epochs; None: in all of them, within `trainer.max_steps`.

    Unlike `trainer.estimated_stepping_batches` it handles accumulation that changes from epoch to epoch.
    """
    limit = math.inf if trainer.max_steps == -1 else trainer.max_steps
    last = trainer.max_epochs if epochs is None else epochs
    if last == -1:
        return limit
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if batches == math.inf:
        return limit
    scheduler = next((c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)), None)
    if scheduler is None:
        return min(math.ceil(batches / trainer.accumulate_grad_batches) * last, limit)
    accumulated = (scheduler.get_accumulate_grad_batches(epoch) for epoch in range(int(last)))
    return min(sum(math.ceil(batches / count) for count in accumulated), limit)


def check_schedule(lr: float, schedule: str, warmup: float) -> None:
    """Raise ValueError for a learning rate or a schedule that is out of range."""
    if not 0 < lr < math.inf:
        raise ValueError(f"lr={lr}: must be a positive number")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule}: no such schedule; choose from {', '.join(SCHEDULES)}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup={warmup}: must be a fraction of the steps, in [0, 1)")
