"""Features of a backbone's stages: which maps they come from, and what is refused."""

import copy

import pytest
import timm
import torch

from cifar10.models.backbones import with_stages
from cifar10.models.efficientnet import EfficientNet

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0).eval()


def watched(network, modules):
    """The network's features, mean and maximum of its last map, and then of what each of these modules gives."""
    maps = []
    for module in modules:
        module.register_forward_hook(lambda module, inputs, output: maps.append(output))
    last = network.forward_features(IMAGES)
    found = [each for stage in maps for each in (stage.mean((2, 3)), stage.amax((2, 3)))]
    return torch.cat([network.forward_head(last, pre_logits=True), last.amax((2, 3)), *found], 1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "stages", "modules"),
    [
        ("tf_efficientnet_b0", 7, lambda network: network.blocks),
        ("tf_efficientnet_b0", 2, lambda network: network.blocks[-2:]),
        ("test_convnext", 4, lambda network: network.stages),
    ],
)
def test_features_of_stages_are_mean_and_maximum_of_each_stages_map(name, stages, modules):
    plain = network(name)
    found = with_stages(plain, stages, name)(IMAGES)
    torch.testing.assert_close(found, watched(plain, modules(plain)))


@torch.no_grad()
def test_channels_that_come_last_are_told_from_rows():
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=64, window_size=2).eval()
    found = with_stages(network, 1, "swin")(IMAGES)
    last = network.forward_features(IMAGES)
    assert last.shape == (2, 2, 2, 768)
    torch.testing.assert_close(found[:, 768 : 2 * 768], last.amax((1, 2)))


@pytest.mark.parametrize(("name", "most"), [("tf_efficientnet_b0", 7), ("test_convnext", 4)])
def test_more_stages_than_there_are_are_refused(name, most):
    for stages in (most + 1, -1):
        with pytest.raises(ValueError, match=rf"^pooled_stages={stages}: must be 0 to {most}, the stages of {name}$"):
            with_stages(network(name), stages, name)


@torch.no_grad()
def test_a_head_on_stages_sees_the_same_from_the_frozen_part():
    model = EfficientNet(["a", "b"], "test_efficientnet", pretrained=False, image_size=64, pooled_stages=3).eval()
    frozen, rest = model.split_backbone(len(model.backbone_blocks()))
    torch.testing.assert_close(model.head(rest(frozen(IMAGES))), model.logits(IMAGES))


def test_a_backbone_that_shows_its_stages_is_called_as_any_other():
    model = EfficientNet(["a", "b"], "test_efficientnet", pretrained=False, image_size=64, pooled_stages=3)
    called = []
    model.backbone.register_forward_hook(lambda *_: called.append(True))  # as sharding and compiling need
    model.logits(IMAGES)
    assert called and torch.equal(copy.deepcopy(model).eval().logits(IMAGES), model.eval().logits(IMAGES))
