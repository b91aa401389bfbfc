"""A stage's mean loss and confusion matrix, summed on the device and read once per epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassificationMetrics(Metric):
    """Loss, accuracy and F1 over all images since the last `reset`, and the confusion matrix behind them.

    `confusion` (C, C), int64: true classes as rows, predicted ones as columns. Updating does not wait for the GPU;
    `compute` sums over all processes. `MeanMetric` and `MulticlassConfusionMatrix` together take two updates per step.
    """

    full_state_update = False
    total_loss: Tensor
    confusion: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.add_state("total_loss", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss in nats, logits (B, C), labels (B,)."""
        self.total_loss += loss.detach() * len(labels)
        cells = labels * self.num_classes + logits.detach().argmax(1)  # bincount would wait for the GPU
        self.confusion.view(-1).index_put_((cells,), torch.ones_like(cells), accumulate=True)

    def compute(self) -> dict[str, Tensor]:
        """`loss`, the mean over images in nats, and the fractions `acc`, `macro_f1` and `balanced_acc`.

        `balanced_acc` is the mean recall of the classes with images; `macro_f1` is the mean over the classes with
        images or predictions. Both as in scikit-learn.
        """
        images, hits = self.confusion.sum(), self.confusion.diag()
        true, either = self.confusion.sum(1), self.confusion.sum(1) + self.confusion.sum(0)
        return {
            "loss": self.total_loss / images,
            "acc": hits.sum() / images,
            "macro_f1": (2 * hits / either)[either > 0].mean(),
            "balanced_acc": (hits / true)[true > 0].mean(),
        }

    @property
    def running_loss(self) -> Tensor:
        """The mean loss so far, of this process alone."""
        return self.total_loss / self.confusion.sum()

    def sums(self) -> dict[str, Tensor]:
        """The sums over all processes, for `restore`."""
        with self.sync_context(should_sync=self._to_sync):
            return {"total_loss": self.total_loss.clone(), "confusion": self.confusion.clone()}

    def restore(self, sums: dict[str, Tensor]) -> None:
        """Continue from the sums that a checkpoint holds."""
        self.total_loss, self.confusion = (sums[name].to(self.device) for name in ("total_loss", "confusion"))
        self._update_count = 1  # else `compute` warns that nothing has been added
