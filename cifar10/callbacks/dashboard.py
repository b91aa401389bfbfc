"""TensorBoard: training and validation curves on one chart, and a run's pictures."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from cifar10.report.figures import SINGLE, confusion_image, confusion_matrix_figure

# each text costs a millisecond, in every epoch
MOST_NAMED = 30  # classes
LEAST_WRITTEN = 0.05  # of a class


class StageLogger(TensorBoardLogger):
    """A TensorBoardLogger with two sub-runs: `train/x` becomes tag `x` of `train`, `val/x` tag `x` of `val`.

    TensorBoard puts curves on one chart only if they are one tag of several runs. What belongs to neither stage goes to
    `train`.
    """

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="train", default_hp_metric=False)
        self._validation: SummaryWriter | None = None
        self._purge_step: int | None = None

    def go_on_after(self, step: int) -> None:
        """Have TensorBoard forget what an interrupted run logged after this step. Call before `fit`."""
        self._kwargs["purge_step"] = self._purge_step = step + 1

    @property
    def validation(self) -> SummaryWriter:
        """The writer of sub-run `val`."""
        if self._validation is None:
            self._validation = SummaryWriter(f"{self.save_dir}/val", purge_step=self._purge_step)
            self._purge_step = None  # only once: what follows is logged by this process
        return self._validation

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        metrics = {name: value for name, value in metrics.items() if name != "epoch"}  # the x axis shows it already
        for name in [name for name in metrics if name.startswith("val/")]:
            self.validation.add_scalar(name.removeprefix("val/"), metrics.pop(name), step)
        super().log_metrics({name.removeprefix("train/"): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def save(self) -> None:
        super().save()
        if self._validation is not None:
            self._validation.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._validation is not None:
            self._validation.close()
            self._validation = None


class Dashboard(pl.Callback):
    """Log the learning rate of each group, augmented training images, and the validation confusion matrix.

    The pictures need a `StageLogger`; without any logger nothing is logged.

    images: how many of the first batch to show, as the network sees them.
    confusion_every: epochs between confusion matrices; the last epoch always has one.
    """

    changes_training = False

    def __init__(self, images: int = 32, confusion_every: int = 1):
        if images < 0:
            raise ValueError(f"images={images}: must not be negative; 0 shows none")
        if confusion_every < 1:
            raise ValueError(f"confusion_every={confusion_every}: must be at least 1 epoch")
        self.images, self.confusion_every = images, confusion_every

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch, batch_idx: int) -> None:
        first = batch_idx == 0 and trainer.current_epoch == 0
        if self.images and first and tensorboard(trainer):
            images = batch[0]
            if not isinstance(images, torch.Tensor):  # cached features
                places = torch.arange(min(self.images, len(trainer.datamodule.indices["train"])))
                images = trainer.datamodule.fixed_view("train", places, 0, pl_module.device)
            self._show_images(trainer, pl_module, images)
        due = (trainer.global_step + 1) % trainer.log_every_n_steps == 0 or batch_idx == 0
        if trainer.loggers and due:
            rates = {
                f"lr/{group['role']}": group["lr"] for group in trainer.optimizers[0].param_groups if group["params"]
            }
            for logger in trainer.loggers:
                logger.log_metrics(rates, trainer.global_step + 1)  # of the step that this batch takes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        due = last or trainer.current_epoch % self.confusion_every == 0
        if trainer.state.fn == "fit" and due and tensorboard(trainer):
            matrix = pl_module.val_metrics.confusion.cpu().numpy()
            self._show_confusion(trainer, pl_module, matrix)

    @rank_zero_only
    def _show_images(self, trainer: Any, pl_module: Any, images: torch.Tensor) -> None:
        images = pl_module.preprocessing.denormalise(images[: self.images].float()).cpu()
        grid = make_grid(images, nrow=8, padding=2, pad_value=1)
        tensorboard(trainer).experiment.add_image("images as the network sees them", grid, trainer.global_step)

    @rank_zero_only
    def _show_confusion(self, trainer: Any, pl_module: Any, matrix) -> None:
        writer, step, tag = tensorboard(trainer).validation, trainer.global_step, "confusion matrix"
        if len(matrix) > MOST_NAMED:
            writer.add_image(tag, confusion_image(matrix), step, dataformats="HWC")
            return
        title = f"validation, epoch {trainer.current_epoch + 1}"
        figure = confusion_matrix_figure(matrix, pl_module.class_names, title, SINGLE, LEAST_WRITTEN)
        writer.add_figure(tag, figure, step, close=False)


def tensorboard(trainer: pl.Trainer) -> Any:  # the StageLogger, or None
    return next((logger for logger in trainer.loggers if isinstance(logger, StageLogger)), None)
