"""A pretrained timm backbone, EfficientNet-B0 unless told otherwise, with a new head."""

import copy
import difflib
import logging
from collections.abc import Iterable

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from cifar10.data.feature_cache import Features
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError
from cifar10.models.classifier import ImageClassifier, check_fraction
from cifar10.models.depthwise import speed_up_depthwise
from cifar10.models.weights import load_weights

log = logging.getLogger(__name__)


class EfficientNet(ImageClassifier):
    """Backbone, global average pool, dropout, linear head (Tan & Le 2019).

    backbone: any timm name. pretrained: start from timm's ImageNet weights (downloaded), or from `weights`, a local
    .safetensors or .pth file of the backbone; a classifier in it is left out.
    image_size: side of the input in pixels; None takes the weights' own (224 for B0). Mean, standard deviation and
    interpolation are always the weights' own, from timm's data config.
    drop_path: highest stochastic depth rate (Huang et al. 2016) of the backbone's blocks, where it has them.
    """

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
    ):
        check_fraction("dropout", dropout)
        check_fraction("drop_path", drop_path)
        network = create_backbone(backbone, pretrained and weights is None, image_size, drop_path)
        config = timm.data.resolve_model_data_config(network)
        image_size = config["input_size"][-1] if image_size is None else image_size
        check_image_size(network, backbone, image_size)
        preprocessing = Preprocessing(image_size, *(config[k] for k in ("mean", "std", "interpolation")))
        super().__init__(class_names, preprocessing, lr, optimizer, weight_decay, label_smoothing, schedule, warmup)
        if weights is not None:
            load_weights(network, weights, backbone)
        pretrained, weights = False, None  # a checkpoint brings its own weights: nothing to fetch when it is loaded
        self.save_hyperparameters(ignore=["network", "config", "preprocessing"], logger=False)
        self.backbone = speed_up_depthwise(network).to(memory_format=torch.channels_last)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.num_features, len(class_names)))

    def logits(self, inputs: Tensor | Features) -> Tensor:
        """The network's, of preprocessed images, or of features that the frozen part has made of them."""
        features = self.tail(inputs.input(self.dtype)) if isinstance(inputs, Features) else self.backbone(inputs)
        return self.head(features)

    def main_network(self) -> nn.Module:
        return self.backbone

    def set_tail(self, tail: nn.Module) -> None:
        """Have `forward` take `Features` up from here: the second part of a `cut`."""
        if self.compile_mode is not None:
            tail.compile(dynamic=False, mode=self.compile_mode)
        self.__dict__["tail"] = tail  # no submodule: it consists of the backbone's

    def parameter_groups(self) -> dict[str, Iterable[tuple[str, nn.Parameter]]]:
        return {"head": self.head.named_parameters(), "backbone": self.backbone.named_parameters()}

    def backbone_blocks(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by block, from the input: the stem, then each whole block as timm groups them.

        The convolution behind the last block belongs to that block: B0 has the stem and 16 MBConv blocks.
        """
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=False))
        parameters = dict(self.backbone.named_parameters())
        return [[parameters[name] for name in groups[index]] for index in sorted(groups)]

    def split_backbone(self, block: int) -> tuple[nn.Module, nn.Module]:
        """The backbone in front of a block of `backbone_blocks()`, and from that block on; len(blocks): all, nothing.

        Both share the backbone's modules. They are right where the backbone is a chain of its blocks, in the order in
        which it holds them: test before use.
        """
        blocks = self.backbone_blocks()
        after = {id(parameter) for learning in blocks[block:] for parameter in learning}
        last = part(self.backbone, after, first=False) if after else nn.Identity()
        return part(self.backbone, after, first=True), last


def part(network: nn.Module, after: set[int], first: bool) -> nn.Module:
    """A copy of a chain of modules, the first or the last part of which does its work; the other is the identity.

    after: ids of the parameters of the last part. The copy shares every module that it does not have to change.
    """
    copied = copy.copy(network)
    copied._modules, copied._compiled_call_impl = dict(network._modules), None
    cut = False
    for name, module in network._modules.items():
        owned = [id(parameter) in after for parameter in module.parameters()]
        if not cut and any(owned):
            cut = True
            if not all(owned):  # the cut lies inside
                copied._modules[name] = part(module, after, first)
                continue
        if cut == first:
            copied._modules[name] = nn.Identity()
    return copied


def create_backbone(name: str, pretrained: bool, image_size: int | None, drop_path: float) -> nn.Module:
    """timm's network without its classifier; UserError for a name that timm lacks or weights that do not arrive."""
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"model.backbone={name}: timm has no such model; {hint}")
    tags = [config.partition(".")[2] for config in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise UserError(f"model.backbone={name}: timm has no such weights; {base} has: {', '.join(tags)}")
    options = {"drop_path_rate": drop_path} if drop_path else {}
    if image_size is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = image_size  # a transformer's position embedding is made for one size
    if pretrained:
        log.info("loading %s, ImageNet weights from timm (downloaded the first time)", name)
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not the user's concern
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if not drop_path:
            raise
        raise UserError(f"model.drop_path={drop_path}: {base} has no stochastic depth; leave it at 0") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"model.backbone={name}: its ImageNet weights could not be loaded ({type(error).__name__}); pass a local"
            " file, model.weights=FILE, or start from random weights, model.pretrained=false"
        ) from error


def check_image_size(network: nn.Module, name: str, image_size: int) -> None:
    """UserError if the image is smaller than one pixel of the last feature map."""
    info = getattr(network, "feature_info", None) or [{"reduction": 1}]
    smallest = max(stage["reduction"] for stage in info)
    if image_size < smallest:
        raise UserError(f"data.image_size={image_size}: {name} needs images of at least {smallest} pixels")
