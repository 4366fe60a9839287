"""Depthwise convolutions whose gradient doesn't crawl on a CPU.

oneDNN's gradient of a depthwise convolution takes up to a hundred times its forward pass (strides and 5x5 kernels in
bf16 are worst). The same convolution with its kernels laid on the diagonal of small dense blocks has a fast one, and
the same values: what was added is multiplied by zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_BLOCKS = (16, 8)  # channels, best first


def with_fast_gradients(network: nn.Module) -> nn.Module:
    """Let every depthwise convolution in `network` take its gradient in blocks; names and parameters stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and _block(child):
                setattr(module, name, _Depthwise(child))
    return network


def _block(conv: nn.Conv2d) -> int:
    """Channels of its blocks; 0 where it is no depthwise convolution that can be laid in blocks."""
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
            kind = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(kind), self.weight.to(kind)
        else:
            weight = self.weight
        output = _DepthwiseFunction.apply(input, weight, self.stride, self.padding, self.dilation, self.block)
        return output if self.bias is None else output + self.bias.view(1, -1, 1, 1)


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, block: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.told = (stride, padding, dilation, block)
        return torch.conv2d(x, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, block = ctx.told
        channels = torch.arange(len(weight))
        blocks = weight.new_zeros(len(weight), block, *weight.shape[2:])
        blocks[channels, channels % block] = weight[:, 0]
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        of_x, of_blocks, _ = torch.ops.aten.convolution_backward(
            gradients[0], x, blocks, None, stride, padding, dilation, False, [0, 0], len(weight) // block, wanted
        )
        of_weight = None
        if of_blocks is not None:
            of_weight = torch.empty_like(weight).copy_(of_blocks[channels, channels % block][:, None])
        return of_x, of_weight, None, None, None, None
