"""What training cost, counted on networks small enough to count by hand."""

import pytest
import torch
from torch import nn

from cifar10.callbacks.feature_caching import FeatureCaching
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.scratch import ScratchClassifier
from cifar10.training.cost import count_flops, training_cost

CLASSES = [f"class {index}" for index in range(10)]
TINY_BACKBONE = "test_efficientnet.r160_in1k"
ROWS = [{"epoch": epoch, "seconds": 2.0, "phase": 1.0 + (epoch > 1)} for epoch in range(5)]


def backbone() -> EfficientNet:
    return EfficientNet(CLASSES, TINY_BACKBONE, pretrained=False, image_size=64)


def test_a_multiply_add_is_two_operations():
    assert count_flops(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5)), image_size=4) == 2 * 48 * 5


def test_learning_a_single_layer_costs_its_weights_gradient_beside_the_forward_pass():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    assert count_flops(network, image_size=4, learning=True) == 2 * (2 * 48 * 5), "images need no gradient"


def test_the_cnn_is_counted_as_by_hand():
    convolutions = [(30, 3, 32), (13, 32, 64), (4, 64, 128)]  # side of the output, channels in, channels out
    by_hand = sum(2 * side**2 * 9 * into * out for side, into, out in convolutions) + 2 * (512 * 128 + 128 * 10)
    cost = training_cost(ScratchClassifier(CLASSES), [], [{"epoch": 0, "seconds": 1.0}], train_images=100, val_images=0)
    assert cost["forward_flops"] == by_hand and cost["parameters"] == 160_202 and cost["bytes"] == 4 * 160_202
    first = 2 * 30**2 * 9 * 3 * 32  # needs no gradient of its input
    assert cost["train_flops"] == 100 * (3 * by_hand - first)
    assert [phase["epochs"] for phase in cost["phases"]] == [1]


def test_a_depthwise_convolution_connects_no_channels_in_its_gradients_either():
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6))
    first, depthwise = 2 * 8**2 * 3 * 6, 2 * 8**2 * 9 * 6
    assert count_flops(network, image_size=8, learning=True) == 2 * first + 3 * depthwise


def test_epochs_of_smaller_images_cost_less():
    model = ScratchClassifier(CLASSES, {"_target_": "cifar10.models.networks.fast_cnn.FastCNN", "widths": [4, 4, 4]})
    rows = [{"epoch": epoch, "seconds": 1.0, "image_size": side} for epoch, side in enumerate((16.0, 32.0, 32.0, 32.0))]
    cost, full = (training_cost(model, [], found, 10, 0) for found in (rows, [{"epoch": 0, "seconds": 1.0}]))
    small = count_flops(model, 16, learning=True)
    assert small < full["train_flops"] / 10 / 3
    assert cost["train_flops"] == pytest.approx(3 * full["train_flops"] + 10 * small, rel=1e-3)


def test_each_phase_has_its_epochs_seconds_and_learning_parameters():
    model = backbone()
    cost = training_cost(model, [TwoPhaseFineTuning(head_epochs=2)], ROWS, train_images=100, val_images=10)
    one, two = cost["phases"]
    assert (one["epochs"], two["epochs"]) == (2, 3) and (one["seconds"], two["seconds"]) == (4.0, 6.0)
    head = sum(parameter.numel() for parameter in model.head.parameters())
    assert one["trained_parameters"] == head < two["trained_parameters"] < cost["parameters"]
    assert cost["train_flops"] == 2 * one["flops_per_epoch"] + 3 * two["flops_per_epoch"]
    assert one["flops_per_epoch"] > 110 * cost["forward_flops"], "a frozen backbone is passed in every epoch"


def test_a_cached_trunk_counts_once_for_each_view():
    costs = {
        views: training_cost(backbone(), [TwoPhaseFineTuning(head_epochs=2), FeatureCaching(views)], ROWS, 100, 10)
        for views in (0, 1, 2)
    }
    heads = 2 * backbone().head[1].weight.numel()
    assert costs[1]["phases"][0]["flops_per_epoch"] == 100 * 2 * heads + 10 * heads, "the head alone"
    assert costs[1]["train_flops"] < costs[2]["train_flops"] < costs[0]["train_flops"]


def test_of_a_backbone_that_cannot_be_split_only_phase_1_is_cached():
    model = EfficientNet(CLASSES, "eva02_tiny_patch14_224", pretrained=False, image_size=28)
    phases = [TwoPhaseFineTuning(head_epochs=2)]
    plain, cached = (
        training_cost(model, [*phases, *more], ROWS, 100, 10)["phases"] for more in ([], [FeatureCaching(2)])
    )
    assert cached[0]["flops_per_epoch"] < plain[0]["flops_per_epoch"] / 10
    assert cached[1] == plain[1]


@pytest.mark.parametrize("views", [0, 2])
def test_counting_leaves_the_model_as_it_was(views):
    model = backbone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_cost(model, [TwoPhaseFineTuning(), FeatureCaching(views)], ROWS, 10, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
