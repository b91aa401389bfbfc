"""The quick depthwise convolution computes what torch's own does, and stands only where it applies."""

import pytest
import timm
import torch
from torch import nn

from cifar10.models.depthwise import SmallMapDepthwise, speed_up_depthwise


def gradients(module, inputs):
    inputs = inputs.clone().requires_grad_()
    output = module(inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output, *torch.autograd.grad(output, [inputs, module.weight], weights)


@pytest.mark.parametrize("side, height, width", [(5, 4, 4), (5, 3, 4), (7, 4, 2), (3, 1, 2), (5, 1, 1), (3, 2, 2)])
def test_output_and_gradients_are_those_of_conv2d(side, height, width):
    torch.manual_seed(0)
    module = nn.Conv2d(6, 6, side, padding=side // 2, groups=6, bias=False, dtype=torch.float64)
    inputs = torch.randn(3, 6, height, width, dtype=torch.float64).to(memory_format=torch.channels_last)
    expected = gradients(module, inputs)
    speed_up_depthwise(nn.Sequential(module))
    assert type(module) is SmallMapDepthwise
    got = gradients(module, inputs)
    assert type(got[0].grad_fn).__name__ == "_DepthwiseBackward"
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_of_the_gradient_check_of_torch_agrees():
    module = nn.Conv2d(2, 2, 5, padding=2, groups=2, bias=False, dtype=torch.float64)
    speed_up_depthwise(nn.Sequential(module))
    inputs = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (inputs,))


def test_a_larger_map_takes_torchs_own_way():
    module = nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False)
    speed_up_depthwise(nn.Sequential(module))
    assert type(module(torch.randn(1, 2, 3, 3)).grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize(
    "options",
    [{"groups": 1}, {"groups": 2}, {"stride": 2}, {"dilation": 2, "padding": 4}, {"padding": 0}, {"bias": True},
     {"out_channels": 8}, {"kernel_size": (5, 3)}],
)  # fmt: skip
def test_every_other_convolution_stays_as_it_is(options):
    defaults = {"out_channels": 4, "kernel_size": 5, "padding": 2, "groups": 4, "bias": False}
    module = nn.Conv2d(4, **(defaults | options))
    speed_up_depthwise(nn.Sequential(module))
    assert type(module) is nn.Conv2d


def test_b0_keeps_its_keys_and_its_twelve_eligible_convolutions_are_quick():
    network = timm.create_model("tf_efficientnet_b0", num_classes=0)
    keys = list(network.state_dict())
    speed_up_depthwise(network)
    assert list(network.state_dict()) == keys
    assert sum(isinstance(module, SmallMapDepthwise) for module in network.modules()) == 12
