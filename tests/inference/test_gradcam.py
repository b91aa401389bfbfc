"""Grad-CAM: the heat is where a network looks, of any network with feature maps."""

import numpy as np
import pytest
import torch
from torch import nn

from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError
from cifar10.inference import gradcam
from cifar10.inference.loading import load
from cifar10.models.predictor import Predictor

captum = pytest.importorskip("captum")


def looks_for_red() -> Predictor:
    """Class 0 is more probable the more red there is anywhere, class 1 the less."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
        network[0].bias[:] = 0
        network[4].weight[:] = torch.tensor([[1.0], [-1.0]])
    return Predictor(network, Preprocessing(16, store_size=16), ("red", "not"))


def test_the_heat_is_where_the_network_looks():
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[0, 4:8, 4:8] = 255
    heat = gradcam.heat(looks_for_red(), image, 0)
    assert heat.dtype == np.float32 and heat.shape == (16, 16) and heat.max() == 1 and heat.min() == 0
    assert heat[4:8, 4:8].min() == 1 and heat.sum() == 16
    assert not gradcam.heat(looks_for_red(), image, 1).any()


def test_a_tuned_backbone_is_explained_and_keeps_its_weights_without_gradients(fine_tuned):
    model = load(fine_tuned, device="cpu")
    square = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    assert max(model.explain(square, index).max() for index in range(3)) == 1
    assert model.probabilities(square[None]).shape == (1, 10)


def test_a_network_without_feature_maps_is_one_line():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(UserError, match="no feature maps"):
        gradcam.heat(Predictor(network, Preprocessing(16, store_size=16), ("a", "b")), torch.zeros(3, 16, 16).byte(), 0)


def test_an_overlay_shows_the_picture_where_nothing_is_hot():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    cold = gradcam.overlay(image, np.zeros((32, 32), np.float32))
    assert cold.size == (224, 224)
    assert np.array_equal(np.asarray(cold)[3::7, 3::7], image.permute(1, 2, 0).numpy())
    assert not np.array_equal(np.asarray(gradcam.overlay(image, np.ones((32, 32), np.float32))), np.asarray(cold))
