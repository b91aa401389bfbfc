"""best.ckpt and last.ckpt: what a run leaves behind, and all it takes to resume bit for bit."""

import io
import logging
import math
import os
import random
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning import callbacks
from pytorch_lightning.callbacks import StochasticWeightAveraging, Timer
from torch import Tensor

from cifar10.errors import UserError
from cifar10.files import atomic_write
from cifar10.metric_names import mode_of
from cifar10.run_folder import RunFolder
from cifar10.signals import Interrupted, signals

log = logging.getLogger(__name__)


class Checkpoint(callbacks.Checkpoint):
    """Keep the best and the last checkpoint, in `dirpath`; on a signal, stop once the step is saved.

    best.ckpt: the weights with the best `monitor`, a name in `trainer.callback_metrics`. mode: "min" or "max"; None
    goes by the metric's name, see `mode_of`. Without validation, a metric of it has no effect: the last epoch is best.
    last.ckpt: after every epoch, after every `every_n_steps` optimizer steps if given, and when SIGINT, SIGTERM or
    Slurm's requeue signal stops the run. From it a run continues as if it had never stopped: weights, optimizer, loops,
    callbacks, random states and the decision to stop early. Lightning's own ModelCheckpoint forgets the random states,
    that decision and, once the run's folder has been moved, the best score, and cannot save in mid-epoch without a
    second validation (Lightning issues 19549, 20288).
    `best_model_path`, `best_model_score`: as in ModelCheckpoint.
    """

    def __init__(
        self, dirpath: str, monitor: str = "val/loss", mode: str | None = None, every_n_steps: int | None = None
    ):
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode={mode}: must be min or max, or null to go by the metric's name")
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: must be at least one step, or null")
        if mode is None and mode_of(monitor) is None:
            raise ValueError(f"mode: must be given for {monitor}; min if a smaller value is better, else max")
        self.dirpath = Path(dirpath)
        self.monitor, self.mode, self.every_n_steps = monitor, mode or mode_of(monitor), every_n_steps
        self.best_model_path, self.best_score = "", None
        self.validated_step = -1  # the step whose weights the current value of `monitor` belongs to
        self.random_states: list[dict] | None = None  # to restore when training starts

    @property
    def best(self) -> Path:
        return self.dirpath / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.dirpath / "last.ckpt"

    @property
    def best_model_score(self) -> Tensor | None:
        return None if self.best_score is None else torch.tensor(self.best_score)

    def state_dict(self) -> dict:
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict) -> None:
        self.best_score = state_dict["best_score"]

    def on_save_checkpoint(self, trainer: Any, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        states: list[Any] = [random_state(trainer.strategy.root_device)]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, random_state(trainer.strategy.root_device))
        # A run that is out of time has not finished.
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
        out_of_time = any((timer.time_remaining() or math.inf) <= 0 for timer in timers)
        checkpoint["random_states"], checkpoint["should_stop"] = states, trainer.should_stop and not out_of_time

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        if trainer.state.fn == "fit":
            self.random_states = checkpoint.get("random_states")
            trainer.should_stop = checkpoint.get("should_stop", False)

    def setup(self, trainer: Any, pl_module: pl.LightningModule, stage: str) -> None:
        if any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks):
            raise UserError("callbacks: no checkpoint would hold StochasticWeightAveraging's average; use average=swa")
        if stage == "fit":
            trainer.precision_plugin.convert_module(pl_module)  # Lightning does so once the weights are loaded: rounded
            self.best_model_path = str(self.best if self.best.is_file() else self.last)
        if stage == "fit" and SLURMEnvironment.detect():
            signals.watch_requeue()  # before Lightning does, which would save in mid-step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.random_states is not None:
            # A different number of processes draws different numbers anyway.
            restore_random_state(self.random_states[trainer.global_rank % len(self.random_states)])
            self.random_states = None
        elif trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)  # each process has its own dropout

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        if not signals.hold:
            signals.hold = True  # from here to the end of the epoch there is something to save
            signals.listen()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        done = batch_idx + 1
        counted = done  # in this epoch; in all of them where validation does not go by epochs
        if trainer.check_val_every_n_epoch is None:
            counted = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        to_validate = trainer.enable_validation and counted % (trainer.val_check_batch or math.inf) == 0
        if trainer.is_last_batch or to_validate:
            return  # validation comes first: the end of the epoch is the next place to resume from
        if done % trainer.accumulate_grad_batches:
            return  # gradients are not in a checkpoint
        stop = self._stop_asked(trainer)
        if stop or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer, self.last)
        if stop:
            self._stop(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validated_step = trainer.global_step
        in_mid_epoch = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and not trainer.should_stop
        if in_mid_epoch and self._improved(trainer):
            self._save(trainer, self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_current = self.validated_step == trainer.global_step or self.monitor.startswith("train/")
        if (is_current or not self._chooses(trainer)) and self._improved(trainer):
            self._save(trainer, self.best)
            self._copy(trainer)
        else:
            self._save(trainer, self.last)
        signals.hold = False
        if self._stop_asked(trainer):
            self._stop(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        signals.hold, signals.ending = False, True

    def _chooses(self, trainer: pl.Trainer) -> bool:
        """Whether `monitor` can have a value; if not, the newest weights are the best."""
        return trainer.enable_validation or self.monitor.startswith("train/")

    def _improved(self, trainer: pl.Trainer) -> bool:
        """Whether these weights are the best so far; if so, their `monitor` becomes the best score."""
        if self._chooses(trainer):
            score, best = float(trainer.callback_metrics.get(self.monitor, math.nan)), self.best_score
            if math.isnan(score) or (best is not None and (score >= best if self.mode == "min" else score <= best)):
                return False
            self.best_score = score
        self.best_model_path = str(self.best)
        return True

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        for logger in trainer.loggers:
            logger.save()  # what a checkpoint counts as logged must not be lost
        trainer.save_checkpoint(path)

    def _copy(self, trainer: pl.Trainer) -> None:
        """Make last.ckpt the same file as best.ckpt; neither is ever written to, only replaced."""
        if trainer.is_global_zero:
            aside = self.last.with_name(f".{self.last.name}.{os.getpid()}.tmp")
            try:
                os.link(self.best, aside)
                os.replace(aside, self.last)
            except OSError:  # a file system without hard links
                with atomic_write(self.last) as file:
                    file.write(self.best.read_bytes())
        trainer.strategy.barrier("Checkpoint._copy")

    def _stop_asked(self, trainer: pl.Trainer) -> bool:
        asked = signals.received is not None
        return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked

    def _stop(self, trainer: Any) -> None:
        """End the run here, with its last step saved."""
        if trainer.is_global_zero:
            log.info(
                f"stopped and saved after epoch {trainer.fit_loop.epoch_progress.current.processed}, step"
                f" {trainer.global_step}\n  resume                {RunFolder(self.dirpath.parent).resume_command}"
            )
        raise Interrupted(signals.received or signal.SIGTERM)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written atomically; Lightning's own are not synced to disk."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # torch hides why writing to a file failed
        torch.save(checkpoint, buffer)
        with atomic_write(path) as file:
            file.write(buffer.getbuffer())


def random_state(device: torch.device) -> dict:
    """The states of Python's, NumPy's and torch's random number generators, as plain values and tensors only."""
    name, keys, *rest = cast(tuple, np.random.get_state())
    state = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(state: dict) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
