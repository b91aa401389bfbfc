"""Which optimizers there are: PyTorch's, and Muon for convolutions with Nesterov SGD for everything else."""

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor
from torch.optim import SGD

COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]  # of Newton and Schulz' iteration, in Jordan's Muon (2024)


class Muon(SGD):
    """Nesterov SGD, but for weights of convolutions, whose steps are orthogonalised (Jordan et al. 2024, Muon).

    A filter bank (O, I, K, K) counts as a matrix (O, I K K). Its momentum is brought close to the nearest orthogonal
    matrix by `steps` iterations, and its norm to sqrt(O) before each step, as batch normalisation makes its length
    meaningless (cifar10-airbench's airbench94_muon, 2024): it knows no weight decay.
    torch.optim.Muon takes matrices alone; timm's has AdamW for everything else, and leaves the norm as it is.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        weight_decay: float = 0.0,
        filter_momentum: float = 0.6,
        steps: int = 3,
        fused: bool | None = None,
    ):
        super().__init__(params, lr=lr, momentum=0.85, nesterov=True, weight_decay=weight_decay, fused=fused)
        self.filter_momentum, self.steps = filter_momentum, steps

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.ndim > 2:
                    gradients[weight], weight.grad = weight.grad, None  # SGD passes it over
                    self._step_filters(weight, gradients[weight], group["lr"])
        super().step()
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return loss

    def _step_filters(self, weight: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum = state["momentum_buffer"]
        momentum.mul_(self.filter_momentum).add_(gradient)
        direction = gradient.add(momentum, alpha=self.filter_momentum).flatten(1)
        precision = torch.promote_types(weight.dtype, torch.float32)  # half would do on a GPU, and is slow on most CPUs
        step = zeropower_via_newtonschulz(direction, self.steps, COEFFICIENTS, dtype=precision)
        weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_(step.view_as(weight), alpha=lr)


OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": SGD, "muon": Muon}


def check_optimizer(name: str, weight_decay: float) -> None:
    """Raise ValueError for an optimizer that there is not, or a weight decay out of range."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name}: no such optimizer; choose from {', '.join(OPTIMIZERS)}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay={weight_decay}: must be a number from 0 up")
