"""A head that is solved for instead of trained: one pass over the features of the frozen backbone."""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar10.callbacks.averaging import validated
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.errors import UserError
from cifar10.models.sharding import load_whole_state


class ClosedFormHead(pl.Callback):
    """Phase 1 without learning: before each validation the head becomes the best linear one in closed form.

    Linear discriminant analysis (Hastie, Tibshirani & Friedman 2009, section 4.3): the logits are the log-probabilities
    of the classes if their features are normally distributed around the class's mean with one covariance for all. Means
    and covariance are sums over the training images that phase 1 has seen, in all its epochs: one epoch will do, and
    more add further views of each image. Phase 1's own training is overwritten. The model's `class_weights` multiply
    the images of a class.

    shrinkage: of the covariance towards a multiple of the identity, in [0, 1] (section 4.3.1). scale: factor of the
    logits; below 1, phase 2 begins with a head of lower norm. Needs `TwoPhaseFineTuning`, and a head that ends in its
    only linear layer.
    """

    def __init__(self, shrinkage: float = 0.01, scale: float = 1.0):
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage={shrinkage}: must lie in [0, 1]")
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale={scale}: must be a positive number")
        self.shrinkage, self.scale = shrinkage, scale
        self.sums: dict[str, Tensor] = {}  # over the images that this process has seen so far
        self.seen = torch.empty(0)  # the last batch's features
        self.solved = True  # for these sums
        self.total: Any = dict  # their sums over all processes, see `setup`

    def state_dict(self) -> dict:
        return {"sums": self.total()}

    def load_state_dict(self, state_dict: dict) -> None:
        self.sums = state_dict["sums"]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        phases = [callback for callback in trainer.callbacks if isinstance(callback, TwoPhaseFineTuning)]
        if not phases:
            raise UserError(
                "callbacks.closed_form_head: there is no frozen phase without callbacks.two_phase; remove it"
            )
        if phases[0].switch_epoch == 0:
            raise UserError(
                "callbacks.two_phase.head_epochs=0: callbacks.closed_form_head needs an epoch to see the images"
            )
        self.two_phase, reduce = phases[0], trainer.strategy.reduce
        self.total = lambda: {name: reduce(value.clone(), reduce_op="sum") for name, value in self.sums.items()}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.hook = pl_module.head.register_forward_pre_hook(self.keep)
        if not trainer.is_global_zero:  # a checkpoint has those of all processes
            self.sums = {name: torch.zeros_like(value) for name, value in self.sums.items()}

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if getattr(self, "hook", None) is not None:
            self.hook.remove()

    def keep(self, head: nn.Module, inputs: tuple[Tensor]) -> None:
        """Keep the features (B, D) that the head is given."""
        if head.training:
            self.seen = inputs[0].detach()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: object, batch: tuple, batch_idx: int) -> None:
        if self.two_phase.phase(trainer.current_epoch) == 2:
            return
        targets, classes = batch[1], len(pl_module.class_names)
        shares = F.one_hot(targets, classes) if targets.ndim == 1 else targets
        self.add(self.seen, shares if pl_module.loss_weights is None else shares * pl_module.loss_weights)
        self.solved = False

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn == "fit":
            self.solve(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.solve(trainer, pl_module)  # where nothing is validated
        if trainer.current_epoch + 1 >= self.two_phase.switch_epoch:
            self.sums = {}  # a hundred megabytes, which no further checkpoint needs

    def add(self, features: Tensor, shares: Tensor) -> None:
        """Take up features (B, D) of images that belong to the classes by these shares, (B, C), weighted or not."""
        features, shares = features.float(), shares.float()
        weighted = features * shares.sum(1, keepdim=True)
        found = {"counts": shares.sum(0), "means": shares.T @ features, "moments": weighted.T @ features}
        for name, value in found.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(value, dtype=torch.double)
            self.sums[name] = self.sums[name].to(value.device).add_(value)

    def solve(self, trainer: Any, pl_module: Any) -> None:
        """Replace the head, and that of an average of the weights, unless that has been done."""
        if not self.solved:
            sums, self.solved = self.total(), True
            for model in {id(model): model for model in (pl_module, validated(trainer, pl_module))}.values():
                self.solve_into(model.head, sums)

    def solve_into(self, head: Any, sums: dict[str, Tensor]) -> None:
        weight, bias = discriminants(sums["counts"], sums["means"], sums["moments"], self.shrinkage)
        last = list(head)[-1]
        name = f"{len(head) - 1}."
        state = {f"{name}weight": self.scale * weight, f"{name}bias": self.scale * bias}
        load_whole_state(head, {key: value.to(last.weight.dtype) for key, value in state.items()})


def discriminants(counts: Tensor, sums: Tensor, moments: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) of linear discriminant analysis.

    counts: (C,), images of each class. sums: (C, D), of their features. moments: (D, D), the sum over all images of the
    products of their features. A class without images gets the mean of all, and no prior.
    """
    total = counts.sum()
    means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1e-12), sums.sum(0) / total)
    covariance = (moments - (means * counts[:, None]).T @ means) / total
    variance = covariance.diagonal().mean()
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    shrunk = (1 - shrinkage) * covariance + (shrinkage + 1e-7) * variance * identity
    weight = torch.linalg.solve(shrunk, means.T).T
    bias = (counts / total).clamp(min=1e-12).log() - 0.5 * (weight * means).sum(1)
    return weight - weight.mean(0), bias - bias.mean()  # only differences between classes matter
