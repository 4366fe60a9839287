"""Depthwise convolutions with a fast gradient on CPUs.

oneDNN's gradient of a depthwise convolution takes up to a hundred times as long as its forward pass (5x5 kernels with
strides in bf16 are the slowest). A grouped convolution with the same kernels on the diagonals of small dense blocks has
a fast gradient and the same values: the added terms are multiplied by zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_BLOCKS = (16, 8)  # channels per block, the fastest first


def with_fast_gradients(network: nn.Module) -> nn.Module:
    """Let depthwise convolutions in `network` compute gradients in blocks; names and parameters stay the same."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and _block(child):
                setattr(module, name, _Depthwise(child))
    return network


def _block(conv: nn.Conv2d) -> int:
    """Channels per block; 0 if it is not a depthwise convolution, or its channels do not divide into blocks."""
    if not conv.groups == conv.in_channels == conv.out_channels or conv.padding_mode != "zeros":
        return 0
    return next((block for block in _BLOCKS if conv.in_channels % block == 0), 0)


class _Depthwise(nn.Conv2d):
    def __init__(self, conv: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)
        self.block = _block(conv)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled(input.device.type):
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), self.weight.to(dtype)
        else:
            weight = self.weight
        output = _DepthwiseFunction.apply(input, weight, self.stride, self.padding, self.dilation, self.block)
        return output if self.bias is None else output + self.bias.view(1, -1, 1, 1)


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, block: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = (stride, padding, dilation, block)
        return torch.conv2d(x, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, block = ctx.options
        channels = torch.arange(len(weight))
        blocks = weight.new_zeros(len(weight), block, *weight.shape[2:])
        blocks[channels, channels % block] = weight[:, 0]
        needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        x_gradient, blocks_gradient, _ = torch.ops.aten.convolution_backward(
            gradients[0], x, blocks, None, stride, padding, dilation, False, [0, 0], len(weight) // block, needed
        )
        weight_gradient = None
        if blocks_gradient is not None:
            weight_gradient = torch.empty_like(weight).copy_(blocks_gradient[channels, channels % block][:, None])
        return x_gradient, weight_gradient, None, None, None, None
