"""What both LightningModules share: the steps, the metrics, the optimizer and its learning rates."""

import copy
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import Strategy
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from cifar10.errors import UserError

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class LearningRates:
    """The learning rate of every parameter group at every step of [first_step, last_step).

    peak: highest value by group name; a group that is not named rests at 0. schedule: "constant", or "cosine"
    (Loshchilov & Hutter 2017, one cycle to 0), after a linear warm-up over the first `warmup`, a fraction of the
    steps.
    """

    peak: dict[str, float]
    first_step: int
    last_step: int
    schedule: str = "constant"
    warmup: float = 0.0

    def at(self, step: int) -> dict[str, float]:
        steps = max(1, self.last_step - self.first_step)
        progress = min(1.0, (step - self.first_step) / steps)
        if progress < self.warmup:
            factor = (progress + 1 / steps) / (self.warmup + 1 / steps)
        elif self.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))
        else:
            factor = 1.0
        return {name: peak * factor for name, peak in self.peak.items()}


class ImageClassifier(pl.LightningModule):
    """Cross-entropy training of a network from images (B, 3, S, S) to logits (B, C).

    A subclass builds the network in its constructor, implements `forward`, and may name several parameter groups.
    class_names: in the order of the labels. preprocessing: fields of `cifar10.data.transforms.Preprocessing`.
    optimizer: "adam", "adamw" or "sgd" (Nesterov momentum 0.9). label_smoothing: Szegedy et al. 2016, section 7.
    lr, schedule, warmup: see `LearningRates`; a callback may replace `learning_rates` for a part of the run.
    """

    def __init__(
        self,
        class_names: list[str],
        preprocessing: dict,
        lr: float,
        optimizer: str,
        weight_decay: float,
        label_smoothing: float,
        schedule: str,
        warmup: float,
    ):
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise UserError(f"model.optimizer={optimizer}: no such optimizer; there are: {', '.join(OPTIMIZERS)}")
        check_schedule("model", lr, schedule, warmup)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing={label_smoothing}: must lie in [0, 1)")
        if not 0 <= weight_decay < math.inf:
            raise UserError(f"model.weight_decay={weight_decay}: must be a number from 0 up")
        self.class_names, self.preprocessing = list(class_names), preprocessing
        self.lr, self.optimizer_name, self.weight_decay = lr, optimizer, weight_decay
        self.label_smoothing, self.schedule, self.warmup = label_smoothing, schedule, warmup
        self.learning_rates: LearningRates | None = None
        self.compile_mode: str | None = None
        self.compile_frozen = False  # where a callback runs a part of the network that does not learn
        self.share_weight = 1.0  # of this process's share of a batch, see `Batches.weight`
        self.sync_batchnorm = True  # over the GPUs, if there are several
        self.train_tally = self.val_tally = Tally(len(class_names))
        self.unchecked_losses: list[tuple[int, Tensor]] = []  # (step, loss) since the last look at them

    def main_network(self) -> nn.Module:
        """What there is to compile."""
        return self.network

    def compile_network(self, mode: str) -> None:
        """Compile the network in place when it is first called; keys of checkpoints do not change.

        mode: of torch.compile. Each size of batch is compiled for itself, which is quicker than one for all sizes.
        """
        self.compile_mode = mode
        self.main_network().compile(dynamic=False, mode=mode)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        logits = self(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        labels = targets if targets.ndim == 1 else targets.argmax(1)  # mixed images count as the larger part
        self.train_tally.add(loss, logits, labels)
        self.unchecked_losses.append((self.global_step, loss.detach()))
        return loss if self.share_weight == 1 else loss * self.share_weight

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.val_tally.add(F.cross_entropy(logits, labels), logits, labels)

    def setup(self, stage: str) -> None:
        """On several GPUs batch normalisation takes its statistics over all of them, as on one."""
        several_gpus = self.trainer.world_size > 1 and self.trainer.strategy.root_device.type == "cuda"
        if stage == "fit" and self.sync_batchnorm and several_gpus:
            convert_sync_batchnorm(self)  # PyTorch's own, which Lightning calls, loses timm's activations

    # A call of `self.log` costs as much as a small layer: metrics are summed on the device and logged once an epoch.
    def on_train_epoch_start(self) -> None:
        self.train_tally = Tally(len(self.class_names))

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # and be validated, though it is in mid-epoch
        ends = self.trainer.is_last_batch or self.trainer.should_stop
        alone_on_cpu = self.device.type == "cpu" and self.trainer.world_size == 1
        # Elsewhere a look at a loss means to wait.
        if ends or len(self.unchecked_losses) >= (1 if alone_on_cpu else 50):
            self.require_finite_losses()
        if ends:
            self._log_tally("train", self.train_tally)

    def on_validation_epoch_start(self) -> None:
        self.val_tally = Tally(len(self.class_names))

    def on_validation_epoch_end(self) -> None:
        self._log_tally("val", self.val_tally)

    def _log_tally(self, stage: str, tally: "Tally") -> None:
        tally.sum_over(self.trainer.strategy)
        self.log_now({f"{stage}/loss": tally.loss, f"{stage}/acc": tally.acc})

    def log_now(self, metrics: dict[str, Tensor | float]) -> None:
        """Log metrics of the epoch, the same on all processes, before its checkpoint is saved.

        Lightning itself would tell loggers of the training metrics afterwards: a kill in between would lose them.
        """
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, logger=False, batch_size=1)
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            values = {name: float(value) for name, value in metrics.items()}
            for logger in self.trainer.loggers:
                logger.log_metrics(values, self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the epoch's sums so far; UserError, before anything is written, for losses or weights that are NaN."""
        self.require_finite_losses()
        if not nn.utils.get_total_norm(self.parameters()).isfinite():
            raise UserError(f"weights are NaN or infinite after step {self.trainer.global_step}; {self._advice()}")
        tally = copy.copy(self.train_tally)
        tally.sum_over(self.trainer.strategy)
        checkpoint["train_tally"] = {"total_loss": tally.total_loss, "confusion": tally.confusion}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # The first process takes what all have seen.
        if "train_tally" in checkpoint and self._trainer is not None and self.trainer.is_global_zero:
            self.train_tally = Tally(len(self.class_names))
            vars(self.train_tally).update(checkpoint["train_tally"])

    def require_finite_losses(self) -> None:
        """UserError with step and learning rate if a loss since the last look is NaN or infinite."""
        steps, losses = zip(*self.unchecked_losses, strict=True) if self.unchecked_losses else ((), ())
        self.unchecked_losses = []
        bad = [] if not steps else (~torch.stack(losses).isfinite()).nonzero().flatten().tolist()
        if self._trainer is not None and self.trainer.world_size > 1:  # all processes stop together
            bad_step = torch.tensor(float(steps[bad[0]]) if bad else math.inf, device=self.device)
            bad_step = float(self.trainer.strategy.reduce(bad_step, reduce_op="min"))
        else:
            bad_step = steps[bad[0]] if bad else math.inf
        if bad_step < math.inf:
            loss = float(losses[bad[0]]) if bad else "no number"
            rates = self.learning_rates.at(int(bad_step)) if self.learning_rates else {}
            rates = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
            raise UserError(
                f"the training loss is {loss} at step {bad_step:.0f} (epoch {self.trainer.current_epoch + 1});"
                f" learning rate: {rates}; {self._advice()}"
            )

    def _advice(self) -> str:
        keeper = self.trainer.checkpoint_callback
        last = getattr(keeper, "last", None) or getattr(keeper, "best_model_path", None)
        there = last and os.path.exists(last)
        good = f"the last good checkpoint is {os.path.relpath(last)}" if there else "there is no checkpoint yet"
        return f"{good}; try a lower learning rate (model.lr, callbacks.two_phase.lr)"

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Logits (B, C) in float32 and labels (B,)."""
        images, labels = batch
        return self(images).float(), labels

    def parameter_groups(self) -> dict[str, Iterable[tuple[str, nn.Parameter]]]:
        """Named parameters by group; every group is in the optimizer from the first step, frozen or not."""
        return {"network": self.named_parameters()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = []
        for name, parameters in self.parameter_groups().items():
            parameters = [parameter for _, parameter in parameters]
            groups.append({"name": name, "role": name, "params": [p for p in parameters if p.ndim > 1]})
            # Biases and normalisation are not decayed (Loshchilov & Hutter's code, He et al. 2019, section 3.1).
            groups.append({"name": f"{name}_1d", "role": name, "params": [p for p in parameters if p.ndim <= 1]})
            groups[-1]["weight_decay"] = 0.0
        extra = {"momentum": 0.9, "nesterov": True} if self.optimizer_name == "sgd" else {}
        extra["fused"] = True  # one kernel for all parameters
        return OPTIMIZERS[self.optimizer_name](groups, lr=self.lr, weight_decay=self.weight_decay, **extra)

    def on_train_start(self) -> None:
        if self.learning_rates is None:
            steps = self.trainer.estimated_stepping_batches
            peak = dict.fromkeys(self.parameter_groups(), self.lr)
            self.learning_rates = LearningRates(peak, 0, steps, self.schedule, self.warmup)

    def on_train_end(self) -> None:
        self.learning_rates, self.share_weight = None, 1.0

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if self.trainer.world_size > 1:
            weight = getattr(self.trainer.train_dataloader, "weight", None)  # other loaders give equal shares
            self.share_weight = weight(batch_idx) if weight else 1.0
        rates = self.learning_rates.at(self.trainer.global_step)
        for group in self.optimizers().param_groups:
            group["lr"] = rates.get(group["role"], 0.0)


class Tally:
    """Loss and confusion matrix of all images seen since it was made, on their device.

    `confusion` (C, C): true classes as rows, predicted ones as columns. `loss` is the mean over images, in nats.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.total_loss = torch.zeros(())
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits (B, C), labels (B,)."""
        if self.confusion.device != labels.device:
            self.total_loss, self.confusion = self.total_loss.to(labels.device), self.confusion.to(labels.device)
        self.total_loss += loss.detach() * len(labels)
        cells = labels * self.num_classes + logits.detach().argmax(1)  # bincount would wait for the GPU
        self.confusion.view(-1).index_put_((cells,), torch.ones_like(cells), accumulate=True)

    def sum_over(self, strategy: Strategy) -> None:
        """Add up what all processes have seen."""
        # A strategy reduces in place, also what a copy of this tally shares.
        self.total_loss = strategy.reduce(self.total_loss.clone(), reduce_op="sum")
        self.confusion = strategy.reduce(self.confusion.clone(), reduce_op="sum")

    @property
    def loss(self) -> Tensor:
        return self.total_loss / self.confusion.sum()

    @property
    def acc(self) -> Tensor:
        return self.confusion.trace() / self.confusion.sum()


def check_schedule(owner: str, lr: float, schedule: str, warmup: float) -> None:
    """Raise UserError for a learning rate or a schedule that cannot be."""
    if not 0 < lr < math.inf:
        raise UserError(f"{owner}.lr={lr}: must be a positive number")
    if schedule not in SCHEDULES:
        raise UserError(f"{owner}.schedule={schedule}: no such schedule; there are: {', '.join(SCHEDULES)}")
    if not 0 <= warmup < 1:
        raise UserError(f"{owner}.warmup={warmup}: must be a fraction of the steps, in [0, 1)")


def check_fraction(key: str, value: float) -> None:
    """Raise UserError for a probability that is none."""
    if not 0 <= value <= 1:
        raise UserError(f"{key}={value}: must lie in [0, 1]")
