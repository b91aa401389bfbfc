"""A pretrained timm backbone, EfficientNet-B0 by default, with a new head."""

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from timm.data.config import resolve_model_data_config
from timm.models import group_parameters
from torch import Tensor, nn

from cifar10.data.feature_cache import Features
from cifar10.data.preprocessing import Preprocessing
from cifar10.files import sha256
from cifar10.models.backbones import count_features, create_backbone, new_head, with_stages
from cifar10.models.classifier import ImageClassifier
from cifar10.models.depthwise import speed_up_depthwise
from cifar10.models.weights import load_weights


class EfficientNet(ImageClassifier):
    """Backbone, global average pool, dropout, linear head (Tan & Le 2019, section 4).

    backbone: any timm name, `hf-hub:OWNER/NAME` or `local-dir:FOLDER`. The repository's or folder's config.json is
    needed again to load a checkpoint.
    pretrained: start from timm's weights (downloaded), or from `weights`, a local .safetensors or torch file of the
    backbone, or a run's checkpoint; a classifier in it is ignored.
    image_size: side of the input in pixels; None takes the weights' own (224 for B0). Mean, standard deviation and
    interpolation are always the weights' own, from timm's data config.
    pooled_stages: how many of the last stages' maps the head sees as well, by the mean and the maximum of each channel;
    made for a frozen backbone, as phase 2's frozen part cannot be cached with it.
    drop_path: highest stochastic depth rate (Huang et al. 2016, section 3) of the backbone's blocks, if it has any.
    """

    backbone: Any  # a timm network
    tail: nn.Module

    def __init__(
        self,
        class_names: list[str],
        backbone: str = "tf_efficientnet_b0.in1k",
        pretrained: bool = True,
        weights: str | None = None,
        image_size: int | None = None,
        dropout: float = 0.3,
        drop_path: float = 0.0,
        lr: float = 1e-3,
        optimizer: str = "adamw",
        weight_decay: float = 0.01,
        label_smoothing: float = 0.0,
        schedule: str = "constant",
        warmup: float = 0.0,
        class_weights: str | list[float] | None = None,
        pooled_stages: int = 0,
    ):
        for name, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name}={rate}: must lie in [0, 1]")
        if optimizer == "muon":
            raise ValueError("optimizer=muon: resets the length of every filter, which pretrained ones need; use adamw")
        network = create_backbone(backbone, pretrained and weights is None, image_size, drop_path)
        config = resolve_model_data_config(network)
        image_size = config["input_size"][-1] if image_size is None else image_size
        network = with_stages(network, pooled_stages, backbone)
        width = count_features(network, backbone, image_size)
        preprocessing = Preprocessing(image_size, *(config[k] for k in ("mean", "std", "interpolation")))
        rates = (lr, optimizer, weight_decay, label_smoothing, schedule, warmup)
        super().__init__(class_names, preprocessing, *rates, class_weights)
        self.weights_sha256: str | None = None  # of the file that training started from; part of the recipe
        if weights is not None:
            load_weights(network, weights, backbone)
            self.weights_sha256 = sha256(Path(weights).expanduser().read_bytes())
        pretrained, weights = False, None  # a checkpoint brings its own weights: nothing to fetch when it is loaded
        self.save_hyperparameters(logger=False)
        self.backbone = speed_up_depthwise(network).to(memory_format=torch.channels_last)
        self.head = new_head(width, len(class_names), dropout)

    def logits(self, inputs: Tensor | Features) -> Tensor:
        """The network's logits for preprocessed images, or for the frozen part's features of them."""
        if isinstance(inputs, Features):
            features = self.tail(inputs.input(cast(torch.dtype, self.dtype)))
        else:
            features = self.backbone(inputs)
        return self.head(features)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["weights_sha256"] = self.weights_sha256

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        self.weights_sha256 = checkpoint.get("weights_sha256")

    def main_network(self) -> nn.Module:
        return self.backbone

    def set_tail(self, tail: nn.Module) -> None:
        """Have `forward` continue from `Features` with this module: the second part of `split_backbone`."""
        if self.compile_mode is not None:
            tail.compile(dynamic=False, mode=self.compile_mode)
        self.__dict__["tail"] = tail  # not a submodule: it consists of the backbone's

    def parameter_groups(self) -> dict[str, Iterable[tuple[str, nn.Parameter]]]:
        return {"head": self.head.named_parameters(), "backbone": self.backbone.named_parameters()}

    def backbone_blocks(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by block, from the input: the stem, then each whole block as timm groups them.

        A convolution after the last block belongs to that block: B0 has the stem and 16 MBConv blocks. Architectures
        that timm does not group (CAFormer, PiT) count each stage as a block.
        """
        parameters = dict(self.backbone.named_parameters())
        if not hasattr(self.backbone, "group_matcher"):
            stages: dict[str, list[nn.Parameter]] = {}
            for name, parameter in parameters.items():
                stages.setdefault(re.findall(r"^\w+(?:\.\d+)?", name)[0], []).append(parameter)  # "stem", "stages.2"
            return list(stages.values())
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=False))
        return [[parameters[name] for name in groups[index]] for index in sorted(groups)]

    def split_backbone(self, block: int) -> tuple[nn.Module, nn.Module]:
        """The backbone before a block of `backbone_blocks()`, and from it on; len(blocks): everything and nothing.

        Both share the backbone's modules. Run in sequence, they equal the backbone only if it is a chain of its
        blocks in the order in which it holds them: compare before use.
        timm's `forward_intermediates` can stop early but not start late, and has stages rather than blocks;
        `as_sequential` exists only for the MobileNet family.
        """
        blocks = self.backbone_blocks()
        after = {id(parameter) for learning in blocks[block:] for parameter in learning}
        tail = keep_part(self.backbone, after, first=False) if after else nn.Identity()
        return keep_part(self.backbone, after, first=True), tail


def keep_part(network: nn.Module, after: set[int], first: bool) -> nn.Module:
    """A copy of a chain of modules that keeps its first or its last part; the other modules become the identity.

    after: ids of the parameters of the last part. The copy shares every module that it does not have to change.
    """
    copied, children = copy.copy(network), cast("dict[str, nn.Module]", network._modules)
    copied._modules, copied._compiled_call_impl = {**children}, None
    passed = False
    for name, module in children.items():
        owned = [id(parameter) in after for parameter in module.parameters()]
        if not passed and any(owned):
            passed = True
            if not all(owned):  # the boundary lies inside
                copied._modules[name] = keep_part(module, after, first)
                continue
        if passed == first:
            copied._modules[name] = nn.Identity()
    return copied
