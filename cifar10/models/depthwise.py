"""Depthwise convolution on maps smaller than its kernel, with a weight gradient that is fast on a CPU.

For such maps (the last blocks of an EfficientNet at 128 pixels convolve 4 x 4 maps with 5 x 5 kernels) oneDNN has no
specialised weight gradient; its general one is ten times slower and takes a third of the whole step.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallMapDepthwise(nn.Conv2d):
    """A depthwise `nn.Conv2d` of stride 1 with "same" padding, with the faster gradient where it applies."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        small = max(height, width) < self.kernel_size[0]
        if small and torch.is_grad_enabled() and self.weight.requires_grad and input.device.type == "cpu":
            return cast(Tensor, _Depthwise.apply(input, self.weight, self.padding[0]))
        return super().forward(input)


def speed_up_depthwise(network: nn.Module) -> nn.Module:
    """Turn every eligible convolution of the network into a `SmallMapDepthwise`, in place; weights and keys stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and 1 < module.groups == module.in_channels == module.out_channels:
            side = module.kernel_size[0]
            same = module.kernel_size == (side, side) and module.padding == (side // 2, side // 2) and side % 2
            if same and module.stride == module.dilation == (1, 1) and module.bias is None:
                module.__class__ = SmallMapDepthwise
    return network


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution whose weight gradient is one matrix product per channel, over all pairs of pixels.

    A weight connects each input pixel to the output pixel at one fixed offset; its gradient is the sum of input times
    output gradient over those pairs.
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.padding = padding
        return F.conv2d(inputs, weight, None, 1, padding, 1, inputs.shape[1])

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        inputs, weight = ctx.saved_tensors
        batch, channels, height, width = inputs.shape
        pixels = height * width
        stride, padding, dilation = (1, 1), (ctx.padding,) * 2, (1, 1)
        options = (None, stride, padding, dilation, False, (0, 0), channels, (True, False, False))
        grad_inputs, _, _ = torch.ops.aten.convolution_backward(grad, inputs, weight, *options)
        x, g = (t.permute(0, 2, 3, 1).reshape(batch * pixels, channels).t().contiguous() for t in (inputs, grad))
        pairs = x.view(channels, batch, pixels).transpose(1, 2) @ g.view(channels, batch, pixels)
        connections = _connections(height, width, weight.shape[-1]).to(pairs)
        return grad_inputs, (pairs.flatten(1) @ connections).view_as(weight), None


def _connections(height: int, width: int, side: int) -> Tensor:
    """Which weight of a side x side kernel connects which pixels: 0 or 1, (input pixel x output pixel, weight)."""
    row, column = (torch.arange(n)[:, None] - torch.arange(n) + side // 2 for n in (height, width))
    # (input row, input column, output row, output column)
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    weight = torch.where(inside, row * side + column, side * side)
    return F.one_hot(weight.flatten(), side * side + 1)[:, :-1]
