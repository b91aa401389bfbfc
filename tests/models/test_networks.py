"""The CNN: its size, shapes and initialisation, and the original notebook's figures from the notebook's own weights."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.models.networks.cnn import CNN
from cifar10.report.metrics import classification_metrics


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_cnn_has_the_parameters_of_the_notebook():
    sizes = {name: parameter.numel() for name, parameter in CNN().named_parameters()}
    assert sum(sizes.values()) == 160_202
    assert list(sizes.values()) == [864, 32, 18_432, 64, 73_728, 128, 65_536, 128, 1_280, 10]


@pytest.mark.parametrize("image_size", [22, 32, 64])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_logits_have_one_row_an_image_and_one_column_a_class(image_size, num_classes):
    logits = CNN(num_classes, image_size)(torch.rand(3, 3, image_size, image_size))
    assert logits.shape == (3, num_classes) and logits.isfinite().all()


@pytest.mark.parametrize(("widths", "smallest"), [((8,), 4), ((8, 8), 10), ((32, 64, 128), 22), ((8,) * 4, 46)])
def test_an_image_too_small_for_the_last_block_is_refused_and_the_smallest_is_named(widths, smallest):
    assert CNN(image_size=smallest, widths=widths)(torch.rand(1, 3, smallest, smallest)).shape == (1, 10)
    for image_size in (smallest - 1, 3, 1, 0):
        with pytest.raises(ValueError, match=rf"\b{smallest} pixels"):
            CNN(image_size=image_size, widths=widths)


@pytest.mark.parametrize(
    "wrong",
    [{"widths": ()}, {"widths": (8, 0)}, {"hidden": 0}, {"dropout": 1.1}, {"dropout": math.nan}, {"image_size": 21}],
    ids=str,
)
def test_an_argument_out_of_range_is_refused_by_its_name(wrong):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}=.*: "):
        CNN(**wrong)


def test_weights_are_glorot_uniform_and_biases_zero():
    layers = [module for module in CNN().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 5
    for layer in layers:
        out_channels, in_channels, *window = layer.weight.shape
        limit = math.sqrt(6 / ((in_channels + out_channels) * math.prod(window)))
        assert 0.97 * limit < layer.weight.max() <= limit and -limit <= layer.weight.min() < -0.97 * limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_logits_do_not_depend_on_the_memory_format_of_images_or_weights(memory_format):
    network, images = CNN(image_size=40).eval(), torch.rand(4, 3, 40, 40)
    with torch.no_grad():
        expected = network(images)
        network = network.to(memory_format=memory_format)
        for images_format in (torch.contiguous_format, torch.channels_last):
            logits = network(images.contiguous(memory_format=images_format))
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_the_layers_are_those_of_the_notebook_in_its_order():
    network, x = CNN(image_size=40).eval(), torch.rand(4, 3, 40, 40)
    with torch.no_grad():
        logits = network(x)
        layers = list(zip(*[iter(network.parameters())] * 2, strict=True))  # weight, bias
        for weight, bias in layers[:3]:
            x = F.max_pool2d(F.conv2d(x, weight, bias).relu(), 2)
        x = x.reshape(4, -1)  # channel, height, width
        x = F.linear(F.linear(x, *layers[3]).relu(), *layers[4])
    torch.testing.assert_close(logits, x, rtol=1e-5, atol=1e-6)


def test_dropout_rests_in_evaluation():
    network, images = CNN(dropout=0.9), torch.rand(4, 3, 32, 32)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


# the original notebook


def load_keras_weights(network, file):
    """Put the notebook's weights (kernels (kh, kw, in, out); dense input in height, width, channel order) into it."""
    with np.load(file) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    convolutions = [module for module in network.features if isinstance(module, nn.Conv2d)]
    dense = [module for module in network.classifier if isinstance(module, nn.Linear)]
    for name, layer in zip(("conv2d", "conv2d_1", "conv2d_2"), convolutions, strict=True):
        layer.weight.data = arrays[f"{name}/kernel"].permute(3, 2, 0, 1).contiguous()
    side = math.isqrt(dense[0].in_features // convolutions[-1].out_channels)
    kernel = arrays["dense/kernel"].view(side, side, convolutions[-1].out_channels, -1)
    dense[0].weight.data = kernel.permute(3, 2, 0, 1).flatten(1)
    dense[1].weight.data = arrays["dense_1/kernel"].T.contiguous()
    for name, layer in zip(("conv2d", "conv2d_1", "conv2d_2", "dense", "dense_1"), convolutions + dense, strict=True):
        layer.bias.data = arrays[f"{name}/bias"]


@pytest.mark.skipif(
    not (os.environ.get("CIFAR10_REFERENCE") and os.environ.get("CIFAR10_ROOT")),
    reason="needs CIFAR10_REFERENCE (a folder with seed_cnn_keras.npz) and CIFAR10_ROOT (one with cifar-10-batches-py)",
)
def test_with_the_weights_of_the_notebook_the_test_figures_are_those_of_the_notebook():
    network, source = CNN().eval(), CIFAR10(os.environ["CIFAR10_ROOT"])
    shapes = [parameter.shape for parameter in network.parameters()]
    load_keras_weights(network, Path(os.environ["CIFAR10_REFERENCE"]) / "seed_cnn_keras.npz")
    assert [parameter.shape for parameter in network.parameters()] == shapes
    images, labels = source.load("test")
    with torch.no_grad():
        logits = torch.cat([network(batch.float() / 255) for batch in images.split(500)])
    metrics = classification_metrics(logits.numpy(), labels.numpy(), source.class_names)
    assert metrics["n"] == 10_000
    assert (round(metrics["acc"], 4), round(metrics["loss"], 4)) == (0.7091, 0.8632)
    assert metrics["confusion_matrix"][0] == [754, 15, 67, 16, 21, 7, 7, 12, 56, 45]
