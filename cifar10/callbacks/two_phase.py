"""Two-phase fine-tuning: the head alone first, then the last part of the backbone with it."""

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from cifar10.callbacks.averaging import averages, validated
from cifar10.errors import UserError
from cifar10.metric_names import mode_of
from cifar10.models.learning_rates import Schedule, check_schedule, optimizer_steps
from cifar10.models.sharding import load_whole_state, whole_state

log = logging.getLogger(__name__)


class TwoPhaseFineTuning(pl.Callback):
    """Train the head on a frozen backbone, then unfreeze the last part of the backbone by whole blocks.

    Phase 1 lasts `head_epochs`, or until `monitor` has not improved for `patience` epochs; the best head is then
    restored. Phase 2 lasts to the end of the run, or until its own `monitor` has not improved for `patience` epochs.
    monitor: a metric of validation, lower or higher being better by its name, see `mode_of`.
    patience: None runs both phases to their end. unfreeze_fraction: of the backbone's blocks, in (0, 1].
    lr: highest learning rate of phase 2, of the unfrozen blocks and, unless `head_lr` says otherwise, of the head;
    schedule, warmup: over phase 2, see `Schedule`. Phase 1 uses the model's own. Phase 2 resets the optimizer's state.

    Frozen means that nothing moves: no gradients, and evaluation mode, so that batch normalisation keeps its statistics
    and stochastic depth is off. Lightning's BackboneFinetuning keeps training batch normalisation, and freezes again
    on resume (Lightning issues 15062, 21531, 21901); here the phase is a function of the epoch and of
    `switch_epoch` alone, which checkpoints restore. The model must have `head` and `backbone_blocks()`.
    """

    def __init__(
        self,
        head_epochs: int = 5,
        patience: int | None = 3,
        unfreeze_fraction: float = 0.3,
        lr: float = 1e-4,
        head_lr: float | None = None,
        schedule: str = "cosine",
        warmup: float = 0.1,
        monitor: str = "val/loss",
    ):
        if head_epochs < 0:
            raise ValueError(f"head_epochs={head_epochs}: must not be negative")
        if patience is not None and patience < 1:
            raise ValueError(f"patience={patience}: must be at least one epoch, or null to never stop early")
        if not 0 < unfreeze_fraction <= 1:
            raise ValueError(f"unfreeze_fraction={unfreeze_fraction}: must be a fraction of the blocks, in (0, 1]")
        if head_lr is not None and not 0 < head_lr < math.inf:
            raise ValueError(f"head_lr={head_lr}: must be a positive number, or null for the same as lr")
        if not monitor.startswith("val/") or mode_of(monitor) is None:
            raise ValueError(f"monitor={monitor}: must be a metric of validation, such as val/loss or val/acc")
        check_schedule(lr, schedule, warmup)
        self.patience, self.unfreeze_fraction = patience, unfreeze_fraction
        self.lr, self.head_lr, self.schedule, self.warmup = lr, head_lr or lr, schedule, warmup
        self.switch_epoch = head_epochs  # the first epoch of phase 2
        self.monitor, self.sign = monitor, 1 if mode_of(monitor) == "min" else -1
        self.best_loss, self.best_epoch = math.inf, -1  # of the current phase; where higher is better, of its negative
        self.best_head: dict[str, torch.Tensor] | None = None  # kept during phase 1 only

    def state_dict(self) -> dict:
        return {key: getattr(self, key) for key in ("switch_epoch", "best_loss", "best_epoch", "best_head")}

    def load_state_dict(self, state_dict: dict) -> None:
        for key, value in state_dict.items():
            setattr(self, key, value)

    def phase(self, epoch: int) -> int:
        """1 while the backbone is frozen, 2 afterwards."""
        return 1 if epoch < self.switch_epoch else 2

    def first_learning_block(self, pl_module: Any) -> int:
        """The number of the first block that phase 2 unfreezes."""
        blocks = len(pl_module.backbone_blocks())
        return blocks - max(1, round(self.unfreeze_fraction * blocks))

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if not hasattr(pl_module, "backbone_blocks"):
            raise UserError(f"callbacks.two_phase: {type(pl_module).__name__} has no backbone to freeze; remove it")

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.switch_epoch >= (trainer.max_epochs or math.inf):
            log.info("phase 2 will not begin: head_epochs=%d, max_epochs=%d", self.switch_epoch, trainer.max_epochs)
        self._enter_phase(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == self.switch_epoch:
            self._switch(trainer, pl_module)
        self._enter_phase(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs, batch, batch_idx) -> None:
        # not at the start of the epoch: a run resumed in mid-epoch starts after that
        if trainer.is_last_batch or trainer.should_stop:
            pl_module.log_now({"phase": float(self.phase(trainer.current_epoch))})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        epoch, loss = trainer.current_epoch, self.sign * float(trainer.callback_metrics[self.monitor])
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, epoch
            if self.phase(epoch) == 1:
                self.best_head = whole_state(validated(trainer, pl_module).head)
        elif self.patience is not None and epoch - self.best_epoch >= self.patience:
            if self.phase(epoch) == 1:
                self.switch_epoch = epoch + 1
            else:
                log.info("%s has not improved for %d epochs: stopping", self.monitor, self.patience)
                trainer.should_stop = True

    def _switch(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Restore the best head, and forget phase 1's optimizer state and score."""
        if self.best_head is not None:
            load_whole_state(pl_module.head, self.best_head)
            log.info("phase 2 begins with the best head, from epoch %d", self.best_epoch + 1)
        else:
            log.info("phase 2 begins")
        self.best_loss, self.best_epoch, self.best_head = math.inf, trainer.current_epoch - 1, None
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
        for average in averages(trainer):
            average.restart()

    def _enter_phase(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Freeze blocks and set learning rates for the phase of this epoch."""
        switch_step, last_step = optimizer_steps(trainer, self.switch_epoch), optimizer_steps(trainer)
        if self.phase(trainer.current_epoch) == 1:
            first = len(pl_module.backbone_blocks())
            rates = Schedule({"head": pl_module.lr}, 0, switch_step, pl_module.schedule, pl_module.warmup)
        else:
            first = self.first_learning_block(pl_module)
            peak = {"head": self.head_lr, "backbone": self.lr}
            rates = Schedule(peak, switch_step, last_step, self.schedule, self.warmup)
        pl_module.follow(rates)
        for index, block in enumerate(pl_module.backbone_blocks()):
            for parameter in block:
                parameter.requires_grad_(index >= first)
        set_mode(pl_module.backbone)


def set_mode(module: nn.Module) -> None:
    """Training mode where something learns, evaluation mode where everything is frozen.

    A module without parameters (dropout, stochastic depth) follows its parent.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    module.training = True
    for child in module.children():
        set_mode(child)
