"""Averages of a run's weights: what is validated, kept and evaluated in place of the weights themselves."""

import math
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cifar10.errors import UserError


class Averaging(WeightAveraging):
    """Keep an average of the weights; a subclass says from when on, and after which steps it takes them up.

    Validation sees the average, and checkpoints have it as their weights; what training goes on with is kept beside it,
    so that a resumed run ends in the same bits. Batch normalisation's statistics are averaged too: computing them anew
    takes a pass over the training images before every validation, and was measured to gain nothing.

    Lightning 2.6's WeightAveraging, from which this differs as follows:
    - Until the average begins, it is the weights themselves; Lightning validates and saves untrained ones.
    - Nothing is taken up between validation and best.ckpt; Lightning does so at the end of an epoch.
    - What does not move stays as it is, to the last bit, as does a count of batches; Lightning's EMA rounds both.
    - It is kept on the device and in the precision of the weights, not on the CPU in single precision.
    - After `fit` the model has the average, also when a checkpoint is loaded to be validated.
    """

    _average_model: Any  # torch's AveragedModel, within `fit`

    def __init__(self, **options: Any):
        super().__init__(use_buffers=True, **options)

    def begun(self, trainer: pl.Trainer) -> bool:
        """Whether the average has begun, with the step that was just made."""
        raise NotImplementedError

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether it takes up the weights of the step that was just made."""
        raise NotImplementedError

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if str(trainer.precision) in ("bf16-true", "16-true"):
            mixed = str(trainer.precision).replace("true", "mixed")
            raise UserError(f"trainer.precision={trainer.precision}: too coarse for an average of weights; use {mixed}")
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._latest_update_step = 0
            module = trainer.precision_plugin.convert_module(self._average_model.module)
            self._average_model.module = module.to(trainer.strategy.root_device)
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()  # read in every step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self._latest_update_step:
            return  # gradients are being accumulated
        self._latest_update_step, average = trainer.global_step, self._average_model
        if not self.begun(trainer):
            self.restart()
        due = self.begun(trainer) and self.due(trainer)
        if due or average.n_averaged == 0:
            average.update_parameters(pl_module)  # the first time, it copies
            for kept, current in zip(average.module.buffers(), pl_module.buffers(), strict=True):
                if not current.is_floating_point():
                    kept.copy_(current)
            if not due:
                self.restart()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass  # the average has been validated

    def restart(self) -> None:
        """Have the average begin anew, with the weights of the next step."""
        self._average_model.n_averaged.zero_()

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._average_model = None


class EMA(Averaging):
    """Exponential moving average: each update keeps `decay` of the average (Polyak & Juditsky 1992, Tarvainen 2017).

    It reaches back about 1 / (1 - decay) updates. It begins at a step, from 0, and anew with phase 2.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1, update_starting_at_step: int = 0):
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: must lie in [0, 1)")
        if update_every_n_steps < 1:
            raise ValueError(f"update_every_n_steps={update_every_n_steps}: must be at least one step")
        if update_starting_at_step < 0:
            raise ValueError(f"update_starting_at_step={update_starting_at_step}: must be a step from 0 up")
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.every, self.first = update_every_n_steps, update_starting_at_step

    def begun(self, trainer: pl.Trainer) -> bool:
        return trainer.global_step > self.first

    def due(self, trainer: pl.Trainer) -> bool:
        return (trainer.global_step - 1 - self.first) % self.every == 0


class SWA(Averaging):
    """Stochastic weight averaging: the mean over the ends of the last epochs (Izmailov et al. 2018).

    start: the part of `max_epochs` before the average begins, in [0, 1); it begins anew with phase 2.
    """

    def __init__(self, start: float = 0.75):
        if not 0 <= start < 1:
            raise ValueError(f"start={start}: must be a fraction of the epochs, in [0, 1)")
        super().__init__()
        self.start = start

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.max_epochs in (None, -1):
            raise UserError("trainer.max_epochs: must be given, so that it is known when the average begins")
        super().setup(trainer, pl_module, stage)

    def begun(self, trainer: pl.Trainer) -> bool:
        return trainer.current_epoch >= self.start * (trainer.max_epochs or math.inf)

    def due(self, trainer: pl.Trainer) -> bool:
        return trainer.is_last_batch


def averages(trainer: Any) -> Iterable[Averaging]:
    return (callback for callback in trainer.callbacks if isinstance(callback, Averaging))


def validated(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
    """What validation has seen: the average of the weights if one is kept, else the model itself."""
    return next((callback._average_model.module for callback in averages(trainer)), pl_module)
