"""What every model shares: the steps, the metrics, the optimizer and its learning rates."""

import logging
import math
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from cifar10.data.preprocessing import Preprocessing
from cifar10.models.class_weights import check_class_weights, weights_of
from cifar10.models.learning_rates import Schedule, ScheduledRates, check_schedule, optimizer_steps
from cifar10.models.metrics import ClassificationMetrics
from cifar10.models.optimizers import OPTIMIZERS, check_optimizer
from cifar10.models.sharding import shard

log = logging.getLogger(__name__)


class ImageClassifier(pl.LightningModule):
    """Cross-entropy training of a network from images to logits (B, C).

    A subclass builds the network in its constructor, implements `logits`, and may name several parameter groups.
    class_names: in the order of the labels. preprocessing: of every image; it is handed to the trainer's data module,
    and travels in the checkpoint. optimizer: "adam", "adamw", "sgd" (Nesterov momentum 0.9) or "muon".
    label_smoothing: Szegedy et al. 2016, section 7. lr, schedule, warmup: see `Schedule`.
    class_weights: of the training loss, which is the mean over images of weight times loss: a number for each class, or
    "balanced", from the training images, see `balanced_weights`. The losses of validation and test have no weights.
    Raises ValueError for a setting out of range.
    """

    network: nn.Module
    loss_weights: Tensor | None
    train_metrics: ClassificationMetrics
    val_metrics: ClassificationMetrics
    test_metrics: ClassificationMetrics

    def __init__(
        self,
        class_names: list[str],
        preprocessing: Preprocessing,
        lr: float,
        optimizer: str,
        weight_decay: float,
        label_smoothing: float,
        schedule: str,
        warmup: float,
        class_weights: str | list[float] | None = None,
    ):
        super().__init__()
        check_optimizer(optimizer, weight_decay)
        check_schedule(lr, schedule, warmup)
        check_class_weights(class_weights, len(class_names))
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: must lie in [0, 1)")
        self.class_names, self.preprocessing = list(class_names), preprocessing
        self.lr, self.optimizer_name, self.weight_decay = lr, optimizer, weight_decay
        self.label_smoothing, self.schedule, self.warmup = label_smoothing, schedule, warmup
        self.class_weights = class_weights
        weights = [1] * len(class_names) if class_weights == "balanced" else class_weights  # until `setup` counts
        weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("loss_weights", weights, persistent=False)
        self.followed: Schedule | None = None  # this run's learning rates; set by whatever schedules it
        self.steps_before: float | None = None  # of the run that a checkpoint came from
        self.compile_mode: str | None = None
        self.compile_frozen = False  # whether callbacks compile the frozen part that they run
        self.temperature = 1.0  # of the training loss, see `Distillation`
        self.loss_weight = 1.0  # of this process's shard of a batch, see `Batches.weight`
        self.sync_batchnorm = True  # over the GPUs, if there are several
        for stage in ("train", "val", "test"):
            setattr(self, f"{stage}_metrics", ClassificationMetrics(len(class_names)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images: uint8 (B, 3, H, W) of any size, or what the preprocessing makes of them."""
        is_raw = isinstance(images, Tensor) and images.dtype == torch.uint8
        return self.logits(self.preprocessing(images).to(self.dtype) if is_raw else images)

    def logits(self, inputs: Tensor) -> Tensor:
        """The network: preprocessed images (B, 3, S, S) -> logits (B, C)."""
        return self.network(inputs)

    def main_network(self) -> nn.Module:
        """What `compile_network` compiles."""
        return self.network

    def compile_network(self, mode: str) -> None:
        """Compile the network in place when it is first called; checkpoint keys do not change.

        mode: of torch.compile. Each batch size is compiled separately, which is faster than one graph for all sizes.
        """
        self.compile_mode = mode
        self.main_network().compile(dynamic=False, mode=mode)

    def setup(self, stage: str) -> None:
        """Hand the preprocessing to the data module, weigh its classes, synchronise batch normalisation over GPUs."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "use_preprocessing"):
            datamodule.use_preprocessing(self.preprocessing)
        if stage == "fit" and self.class_weights == "balanced" and self.loss_weights is not None:
            self.loss_weights.copy_(weights_of(datamodule))
        several_gpus = self.trainer.world_size > 1 and self.trainer.strategy.root_device.type == "cuda"
        if stage == "fit" and self.sync_batchnorm and several_gpus:
            convert_sync_batchnorm(self)  # PyTorch's own, which Lightning calls, loses timm's activations

    def configure_model(self) -> None:
        """Share the parameters out over the processes, if the trainer's strategy does that."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        logits = self(images)
        weights, smoothing, scaled = self.loss_weights, self.label_smoothing, logits / self.temperature
        if weights is None:
            loss = F.cross_entropy(scaled, targets, label_smoothing=smoothing)
        else:  # PyTorch's own mean divides by the sum of a batch's weights, which differs between processes
            loss = F.cross_entropy(scaled, targets, weights, reduction="none", label_smoothing=smoothing).mean()
        loss = loss * self.temperature**2
        labels = targets if targets.ndim == 1 else targets.argmax(1)  # mixed images count as the larger part
        self.train_metrics.update(loss, logits, labels)
        return loss if self.loss_weight == 1 else loss * self.loss_weight

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(self.val_metrics, batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(self.test_metrics, batch)

    def _evaluate(self, metrics: ClassificationMetrics, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = self(images)
        metrics.update(F.cross_entropy(logits, labels), logits, labels)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Logits (B, C) in float32 and labels (B,)."""
        images, labels = batch
        return self(images).float(), labels

    # A call to `self.log` costs as much as a small layer: metrics are summed on the device and logged once per epoch.
    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True  # and be validated, though it is in mid-epoch
        if self.trainer.is_last_batch or self.trainer.should_stop:
            self.log_epoch("train", self.train_metrics)

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()

    def on_validation_epoch_end(self) -> None:
        self.log_epoch("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self.test_metrics.reset()

    def on_test_epoch_end(self) -> None:
        self.log_epoch("test", self.test_metrics)

    def log_epoch(self, stage: str, metrics: ClassificationMetrics) -> None:
        found = metrics.compute()
        names = ("loss", "acc") if stage == "train" else found  # mixed images belong to no one class
        self.log_now({f"{stage}/{name}": found[name] for name in names})

    def log_now(self, metrics: dict[str, Tensor | float]) -> None:
        """Log metrics of the epoch, the same on all processes.

        During `fit`, loggers get them at once: Lightning passes training metrics on only after the epoch's checkpoint
        has been saved, so a kill in between would lose them.
        """
        fitting = self.trainer.state.fn == "fit"
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, logger=not fitting, batch_size=1)
        if fitting and not self.trainer.sanity_checking:
            values = {name: float(value) for name, value in metrics.items()} | {"epoch": self.trainer.current_epoch}
            for logger in self.trainer.loggers:
                logger.log_metrics(values, self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["preprocessing"] = self.preprocessing.settings
        if self._trainer is not None and self.trainer.state.fn == "fit":
            checkpoint["train_metrics"] = self.train_metrics.sums()  # of the epoch so far
            checkpoint["optimizer_steps"] = optimizer_steps(self.trainer)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        if "preprocessing" in checkpoint:
            self.preprocessing = Preprocessing(**checkpoint["preprocessing"])
        self.steps_before = checkpoint.get("optimizer_steps")
        # The first process takes the sums over all.
        if "train_metrics" in checkpoint and self._trainer is not None and self.trainer.is_global_zero:
            self.train_metrics.restore(checkpoint["train_metrics"])

    def parameter_groups(self) -> dict[str, Iterable[tuple[str, nn.Parameter]]]:
        """Named parameters by group; every group is in the optimizer from the first step, frozen or not."""
        return {"network": self.named_parameters()}

    def peak_rates(self) -> dict[str, float]:
        """The highest learning rate of each of `parameter_groups`."""
        return dict.fromkeys(self.parameter_groups(), self.lr)

    def configure_optimizers(self) -> Any:
        groups = []
        for name, parameters in self.parameter_groups().items():
            parameters = [parameter for _, parameter in parameters]
            groups.append({"name": name, "role": name, "params": [p for p in parameters if p.ndim > 1]})
            # Biases and normalisation are not decayed (Loshchilov & Hutter's code, He et al. 2019, section 3.1).
            groups.append({"name": f"{name}_1d", "role": name, "params": [p for p in parameters if p.ndim <= 1]})
            groups[-1]["weight_decay"] = 0.0
        extra: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if self.optimizer_name == "sgd" else {}
        trainer = self._trainer
        clipped = trainer is not None and str(trainer.precision).endswith("-mixed") and trainer.gradient_clip_val
        # One kernel for all parameters. Lightning refuses to clip before it in mixed precision, as the kernel may have
        # yet to unscale the gradients, and SGD has none for shards. None is PyTorch's choice; False would be slow.
        extra["fused"] = (not clipped and self.device_mesh is None and self.optimizer_name != "muon") or None
        optimizer = OPTIMIZERS[self.optimizer_name](groups, lr=self.lr, weight_decay=self.weight_decay, **extra)
        # The number of steps is known when training starts.
        rates = ScheduledRates(optimizer, Schedule(self.peak_rates(), 0, math.inf))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def follow(self, schedule: Schedule) -> None:
        """Use the learning rates of a schedule from the next step on, in place of the model's own."""
        self.followed = schedule
        rates = self.lr_schedulers()
        if isinstance(rates, ScheduledRates):  # not what a callback, such as Lightning's SWA, has put there
            rates.follow(schedule)

    def on_train_start(self) -> None:
        steps = optimizer_steps(self.trainer)
        before = [group["lr"] for group in self.trainer.optimizers[0].param_groups]
        followed = self.followed or Schedule(self.peak_rates(), 0, steps, self.schedule, self.warmup)
        self.follow(followed)
        if self.steps_before not in (None, steps) and followed.depends_on_length:
            after = max(followed.at(self.trainer.global_step).values())
            log.info(
                f"the schedule now covers {steps} steps instead of {self.steps_before}: the learning rate goes from"
                f" {max(before):.3g} to {after:.3g}"
            )
        self.steps_before = None

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if self.trainer.world_size > 1:
            weight = getattr(self.trainer.train_dataloader, "weight", None)  # other loaders give equal shards
            self.loss_weight = weight(batch_idx) if weight else 1.0

    def on_train_end(self) -> None:
        self.followed, self.loss_weight = None, 1.0
