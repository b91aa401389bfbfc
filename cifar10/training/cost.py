"""What training cost: parameters and floating-point operations by phase, from the model and its epochs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from cifar10.callbacks.feature_caching import FeatureCaching, is_split
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.models.classifier import ImageClassifier


def training_cost(
    model: ImageClassifier,
    callbacks: Sequence[pl.Callback],
    rows: Sequence[dict[str, float]],
    train_images: int,
    val_images: int,
) -> dict:
    """Size, parameters, and operations of one forward pass, of an epoch's images in each phase, and of the whole run.

    rows: of metrics.csv, with "epoch", "seconds", in two phases "phase" and, where images grow, their "image_size". A
    multiply-add is two operations; only matrix products and convolutions count (torch's counter). A frozen part that
    was cached counts once for each view; validation's forward passes count in every epoch; of epochs that differ, an
    epoch is their mean. Counts on a copy: the model may be compiled.
    """
    model = type(model)(**model.hparams)
    two_phase = next((one for one in callbacks if isinstance(one, TwoPhaseFineTuning)), None)
    caching = next((one for one in callbacks if isinstance(one, FeatureCaching) and one.views), None)
    views = caching.views if caching else 0
    forward, phases, once = count_flops(model), [], 0
    numbers = sorted({int(row.get("phase", 1)) for row in rows})
    for number in numbers:
        first = freeze(model, two_phase, number) if two_phase else 0
        cached = frozen_flops(model, first) if caching else 0
        epochs = [row for row in rows if int(row.get("phase", 1)) == number]
        sides = Counter(int(row.get("image_size", model.preprocessing.image_size)) for row in epochs)
        counted = sum(count * count_flops(model, side, learning=True) for side, count in sides.items())
        step = counted // len(epochs) - cached
        phases.append(
            {
                "phase": number,
                "epochs": len(epochs),
                "seconds": round(sum(row.get("seconds", 0) for row in epochs), 1),
                "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "flops_per_epoch": step * train_images + (forward - cached) * val_images,
            }
        )
        if number == numbers[0]:  # phase 1 uses only one view if phase 2 follows
            once += cached * (train_images * (views if number == numbers[-1] else 1) + val_images)
        else:  # the part before phase 2's blocks has seen the first view in phase 1
            once += cached * train_images * (views - 1)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        "forward_flops": forward,
        "phases": phases,
        "train_flops": once + sum(phase["flops_per_epoch"] * phase["epochs"] for phase in phases),
    }


def freeze(model: Any, two_phase: TwoPhaseFineTuning, phase: int) -> int:
    """Set `requires_grad` as in a phase; returns the number of the first block that learns."""
    blocks = model.backbone_blocks()
    first = len(blocks) if phase == 1 else two_phase.first_learning_block(model)
    for index, block in enumerate(blocks):
        for parameter in block:
            parameter.requires_grad_(index >= first)
    return first


def frozen_flops(model: Any, first: int) -> int:
    """The operations for one image of the blocks before the first that learns; 0 if they cannot be run alone."""
    if not first:
        return 0
    model.eval()
    side, (trunk, tail) = model.preprocessing.image_size, model.split_backbone(first)
    whole, _ = model.split_backbone(len(model.backbone_blocks()))
    return count_flops(trunk, side) if is_split(run, trunk, tail, whole, torch.rand(1, 3, side, side)) else 0


@torch.no_grad()
def run(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network(images)


def count_flops(network: Any, image_size: int | None = None, learning: bool = False) -> int:
    """The operations of a network's forward pass on one image, with the backward pass if `learning`."""
    side = image_size or network.preprocessing.image_size
    images = torch.zeros(1, 3, side, side)
    network.eval()  # batch normalisation cannot train on one image
    counted = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: backward_flops})
    with counted as counter, torch.set_grad_enabled(learning):
        outputs = network(images)
        if learning:
            outputs.sum().backward()
    network.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def backward_flops(
    grad_shape, input_shape, weight_shape, _bias, _stride, _padding, _dilation, transposed, _out_padding, _groups,
    output_mask, out_shape=None,
) -> int:  # fmt: skip
    """Of a convolution's backward pass: as many for each gradient, of its input and of its weights, as forward.

    PyTorch 2.15's own count has the weights' gradient of a depthwise convolution as if it connected all channels.
    """
    forward = conv_flop_count(input_shape, weight_shape, grad_shape, transposed)
    return forward * sum(map(bool, output_mask[:2]))
