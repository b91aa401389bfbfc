"""What both LightningModules share: the steps, the metrics, the optimizer and its learning rates."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import Strategy
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
        self.train_tally = self.val_tally = Tally(len(class_names))

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
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.val_tally.add(F.cross_entropy(logits, labels), logits, labels)

    # A call of `self.log` costs as much as a small layer: metrics are summed on the device and logged once an epoch.
    def on_train_epoch_start(self) -> None:
        self.train_tally = Tally(len(self.class_names))

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # and be validated, though it is in mid-epoch
        if self.trainer.is_last_batch or self.trainer.should_stop:
            self._log_tally("train", self.train_tally)

    def on_validation_epoch_start(self) -> None:
        self.val_tally = Tally(len(self.class_names))

    def on_validation_epoch_end(self) -> None:
        self._log_tally("val", self.val_tally)

    def _log_tally(self, stage: str, tally: "Tally") -> None:
        tally.sum_over(self.trainer.strategy)
        metrics = {f"{stage}/loss": tally.loss, f"{stage}/acc": tally.acc}
        options = {"on_step": False, "on_epoch": True, "batch_size": 1}  # summed over all processes already
        self.log_dict(metrics, prog_bar=True, logger=self.trainer.state.fn == "fit", **options)

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
        self.learning_rates = None

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
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
        self.total_loss = strategy.reduce(self.total_loss, reduce_op="sum")
        self.confusion = strategy.reduce(self.confusion, reduce_op="sum")

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
