"""NaN ends the run: at the step where it appears, and before anything is saved over a good checkpoint."""

import math
import os
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cifar10.errors import UserError


class NaNGuard(pl.Callback):
    """Stop at a training loss that is NaN or infinite, and save no weights that are.

    every_n_steps: steps between reading losses, for which a GPU has to wait; a single process on a CPU reads each.
    Raises UserError with the exact step, its learning rates and the last good checkpoint.
    Lightning's `detect_anomaly` checks every operation of the backward pass, at several times the cost.
    """

    changes_training = False

    def __init__(self, every_n_steps: int = 50):
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: must be at least 1")
        self.every_n_steps = every_n_steps
        self.unread: list[tuple[int, dict[str, float], Tensor]] = []  # (step, its learning rates, its loss)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch, batch_idx: int) -> None:
        self.rates = {group.get("role", "lr"): group["lr"] for group in trainer.optimizers[0].param_groups}
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch, batch_idx) -> None:
        self.unread.append((self.step, self.rates, outputs["loss"]))
        alone_on_cpu = pl_module.device.type == "cpu" and trainer.world_size == 1
        every = 1 if alone_on_cpu else self.every_n_steps
        if trainer.is_last_batch or trainer.should_stop or len(self.unread) >= every:
            self._read(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict) -> None:
        self._read(trainer, pl_module)
        if not nn.utils.get_total_norm(pl_module.parameters()).isfinite():
            raise UserError(f"weights are NaN or infinite after step {trainer.global_step}; {advice(trainer)}")

    def _read(self, trainer: pl.Trainer, pl_module: Any) -> None:
        unread, self.unread = self.unread, []
        bad = (~torch.stack([loss for *_, loss in unread]).isfinite()).nonzero().flatten().tolist() if unread else []
        step = unread[bad[0]][0] if bad else math.inf
        if trainer.world_size > 1:  # all processes stop together
            step = torch.tensor(float(step), device=pl_module.device)
            step = float(trainer.strategy.reduce(step, reduce_op="min"))
        if step < math.inf:
            loss = float(unread[bad[0]][2]) if bad else "NaN or infinite"
            rates = unread[bad[0]][1] if bad else self.rates
            rates = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
            raise UserError(
                f"the training loss is {loss} at step {step:.0f} (epoch {trainer.current_epoch + 1}), learning rate"
                f" {rates}; {advice(trainer)}"
            )


def advice(trainer: pl.Trainer) -> str:
    keeper = trainer.checkpoint_callback
    last = getattr(keeper, "last", None) or getattr(keeper, "best_model_path", None)
    good = "no checkpoint has been saved yet"
    if last and os.path.exists(last):
        good = f"the last good checkpoint is {os.path.relpath(last)}"
    return f"{good}; try a lower learning rate (model.lr, callbacks.two_phase.lr)"
