"""Data-parallel training that computes what one process would compute on the whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


def shared_denominator(count: Tensor) -> Tensor:
    """The mean over all processes of a count that a loss is divided by; a sum below 1 counts as 1.

    Gradients are averaged over processes: if each process divides by this mean, the average is the gradient of the
    whole batch's loss, divided by the sum of the counts.
    """
    total, world = count.detach().clone(), 1
    if distributed.is_initialized():
        distributed.all_reduce(total)
        world = distributed.get_world_size()
    return total.clamp(min=1) / world


def with_synchronised_batchnorm(network: nn.Module) -> nn.Module:
    """Let every BatchNorm in `network` normalise by the whole batch; names, parameters and buffers stay the same.

    torch's SyncBatchNorm supports GPUs only.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _SynchronisedBatchNorm(child))
    return network


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes; its backward pass sums the gradients over all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


class _SynchronisedBatchNorm(nn.BatchNorm2d):
    def __init__(self, norm: nn.BatchNorm2d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(norm.__dict__)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input if input.dtype == torch.float64 else input.float()
        count = x.new_full((1,), x.numel() / x.shape[1])  # made on the device, to avoid a copy that blocks
        sums = _AllReduceSum.apply(torch.cat([x.sum(dim=(0, 2, 3)), count]))
        total = sums[-1]
        mean = sums[:-1] / total
        # Around the shared mean: the mean of squares loses small differences from a large mean.
        centred = x - mean[None, :, None, None]
        variance = _AllReduceSum.apply(centred.square().sum(dim=(0, 2, 3))) / total
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * total / (total - 1), momentum)
        normalised = centred * torch.rsqrt(variance + self.eps)[None, :, None, None]
        output = normalised * self.weight[None, :, None, None] + self.bias[None, :, None, None]
        return output.to(input.dtype).contiguous(memory_format=torch.channels_last)


def in_any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is true in any process; all of them must call this. Without a process group: the flag itself."""
    if not distributed.is_initialized():
        return flag
    count = torch.tensor(float(flag), device=device)
    distributed.all_reduce(count)
    return count.item() > 0
