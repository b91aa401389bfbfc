"""The networks of checkpoints without Lightning and metrics, whose import takes longer than a picture's prediction."""

from collections import OrderedDict

import torch
from torch import nn

from cifar10.data.preprocessing import Preprocessing
from cifar10.models.networks.build import build_network
from cifar10.models.predictor import Predictor


def scratch(parameters: dict) -> nn.Module:
    """The network of a `ScratchClassifier`, from its hyperparameters."""
    size = 32 if parameters["image_size"] is None else parameters["image_size"]
    built = build_network(parameters["network"], num_classes=len(parameters["class_names"]), image_size=size)
    return nn.Sequential(OrderedDict(network=built))


def pretrained(parameters: dict, features: int) -> nn.Module:
    """The backbone and the head of an `EfficientNet`, from its hyperparameters."""
    from cifar10.models.backbones import (
        create_backbone,
        new_head,
        with_stages,
    )  # with timm, for which others need not wait

    backbone = create_backbone(parameters["backbone"], False, parameters["image_size"], 0.0)
    backbone = with_stages(backbone, parameters.get("pooled_stages", 0), parameters["backbone"])
    return nn.Sequential(OrderedDict(backbone=backbone, head=new_head(features, len(parameters["class_names"]), 0.0)))


def plain_predictor(target: str, checkpoint: dict) -> Predictor | None:
    """The predictor of a checkpoint; None for classes and for checkpoints of earlier versions that this does not know.

    Raises what a damaged checkpoint makes of it: KeyError, TypeError, ValueError, RuntimeError and others.
    """
    parameters, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    if "preprocessing" not in checkpoint:
        return None
    if target == "cifar10.models.scratch.ScratchClassifier" and "network" in parameters:
        network = scratch(parameters)
    elif target == "cifar10.models.efficientnet.EfficientNet":
        network = pretrained(parameters, features=state["head.1.weight"].shape[1])
    else:
        return None
    network.load_state_dict(state)
    network = network.to(memory_format=torch.channels_last)
    return Predictor(network, Preprocessing(**checkpoint["preprocessing"]), parameters["class_names"])
