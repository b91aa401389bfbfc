"""timm's networks without their classifiers, by name."""

import copy
import difflib
import functools
import inspect
import logging
from typing import Any

import timm
import torch
from timm.models import parse_model_name
from torch import Tensor, nn

from cifar10.errors import cause_of

log = logging.getLogger(__name__)


def create_backbone(name: str, pretrained: bool, image_size: int | None, drop_path: float) -> nn.Module:
    """timm's network without its classifier; ValueError for an unknown name, or weights that cannot be loaded."""
    config = find_config(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    if image_size is not None and config.get("fixed_input_size"):
        options["img_size"] = image_size  # a transformer's position embedding is fixed to one size
    if pretrained:
        log.info("loading %s, pretrained weights from timm (downloaded the first time)", name)
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not the user's concern
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if not drop_path:
            raise
        raise ValueError(f"drop_path={drop_path}: {name} has no stochastic depth; leave it at 0") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ValueError(
            f"backbone={name}: its pretrained weights could not be loaded ({type(error).__name__}); pass a local"
            " file, model.weights=FILE, or start from random weights, model.pretrained=false"
        ) from error


def find_config(name: str) -> dict:
    """timm's pretrained config for a name, or that of a hub repository or local folder; ValueError if there is none."""
    try:
        source, _ = parse_model_name(name)
        if source is not None:
            with torch.device("meta"):  # only timm's own loader reads both
                found: Any = timm.create_model(name, pretrained=False)
            return found.default_cfg
    except Exception as error:  # the folder or repository may hold anything
        raise ValueError(f"backbone={name}: {' '.join(str(error).split())}") from error
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise ValueError(f"backbone={name}: timm has no such model; {hint}")
    tags = [config.partition(".")[2] for config in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ValueError(f"backbone={name}: timm has no such weights; {base} has: {', '.join(tags)}")
    found = timm.get_pretrained_cfg(name)
    return found.to_dict() if found else {}


def count_features(network: Any, name: str, image_size: int) -> int:
    """The number of features that the backbone returns per image; ValueError for a size that it cannot take.

    Nothing is computed: the tensors are on torch's meta device. timm's `num_features` and `head_hidden_size` are each
    wrong for some architectures.
    """
    info = getattr(network, "feature_info", None) or [{"reduction": 1}]
    smallest = max(stage["reduction"] for stage in info)  # one pixel of the last feature map
    if image_size < smallest:
        raise ValueError(f"image_size={image_size}: {name} needs images of at least {smallest} pixels")
    tensors = [*network.named_parameters(), *network.named_buffers()]
    training, network = network.training, network.eval()
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, image_size, image_size, device="meta")
            features = torch.func.functional_call(network, {key: value.to("meta") for key, value in tensors}, image)
    except Exception as error:  # each architecture raises its own kind
        own = network.default_cfg["input_size"][-1]
        raise ValueError(
            f"image_size={image_size}: {name} cannot take this size; its own is {own} ({cause_of(error)})"
        ) from error
    network.train(training)
    return features.shape[1]


def with_stages(network: Any, stages: int, name: str) -> nn.Module:
    """A copy of a timm network, of the same modules, that returns `stage_features`; the network itself if stages is 0.

    Raises ValueError for more stages than there are.
    """
    if not stages:
        return network
    most = 0
    if hasattr(network, "forward_intermediates"):
        most = len(network.blocks) if finer_stages(network) else len(network.feature_info)
    if not 0 < stages <= most:
        raise ValueError(f"pooled_stages={stages}: must be 0 to {most}, the stages of {name}")
    copied = copy.copy(network)
    copied._compiled_call_impl = None
    copied.forward = functools.partial(stage_features, copied, stages=stages)
    return copied


def finer_stages(network: Any) -> dict[str, bool]:
    """What has `forward_intermediates` return a map of each stage rather than of each resolution, if it can.

    Of EfficientNets and MobileNets: B0 has seven stages (Tan & Le 2019, table 1) at five resolutions.
    """
    known = inspect.signature(network.forward_intermediates).parameters
    return {"extra_blocks": True} if "extra_blocks" in known else {}


def stage_features(network: Any, images: Tensor, stages: int) -> Tensor:
    """The network's features, then mean and maximum of each channel of its last stages' maps: (B, D).

    Convolutional networks have one map more, from which they take their features, by its mean: its maximum is added.
    """
    last, maps = network.forward_intermediates(images, indices=stages, **finer_stages(network))
    found = [network.forward_head(last, pre_logits=True)]
    if last.ndim == 4:  # Swin Transformers have channels last
        found.append(last.amax((1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else (2, 3)))
    for stage in maps:
        found += [stage.mean((2, 3)), stage.amax((2, 3))]
    return torch.cat(found, 1)


def new_head(features: int, classes: int, dropout: float) -> nn.Module:
    """From pooled features to logits."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes))
