"""Structured pruning: blocks with fewer inner channels.

Inner channels connect two convolutions of a block, and nothing else reads them: those between the convolutions of a
bottleneck, in the middle of an inverted residual, and after a pixel shuffle. Without some of them, the rest of the
network keeps its shapes, and what is left is a dense network that every runtime executes.

A channel is kept for what it adds to the output of its reader: the root mean square of the channel after a ReLU, by the
statistics of its normalisation, times the norm of the weights that read it (an L2 criterion in the spirit of Li et al.,
Pruning Filters for Efficient ConvNets, ICLR 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

_MULTIPLE = 8  # channels: vector units compute this many at once, and odd numbers are slower than the next multiple


@dataclass(frozen=True)
class InnerChannels:
    """Channels between two convolutions of a block.

    Attributes:
        writers: the convolutions whose outputs have these channels; the first one makes them, others scale them, as
            squeeze-and-excitation does.
        norm: the last normalisation before the readers.
        readers: the convolutions that read them, as the first channels of their inputs; the first one leads to the
            output of the block.
        between: all layers from writer to reader with parameters for each channel, `norm` included.
        group: outputs of the writer in one channel of the reader: 4 if a pixel shuffle is between them.
    """

    writers: tuple[nn.Conv2d, ...]
    norm: nn.BatchNorm2d
    readers: tuple[nn.Conv2d, ...]
    between: tuple[nn.Module, ...]
    group: int = 1

    @property
    def width(self) -> int:
        """Number of channels, as the reader sees them."""
        return self.writers[0].out_channels // self.group

    def importance(self) -> Tensor:
        """(width,) what each channel adds to the output of the reader, relative to the others."""
        mean, deviation = self.norm.bias.double(), self.norm.weight.double().abs()
        # E[max(0, z)^2] of z ~ N(mean, deviation^2).
        ratio = mean / deviation.clamp(min=1e-12)
        below = torch.special.ndtr(ratio)
        density = torch.exp(-(ratio**2) / 2) / (2 * torch.pi) ** 0.5
        power = ((mean**2 + deviation**2) * below + mean * deviation * density).clamp(min=0)
        read = self.readers[0].weight[:, : self.width].double().square().sum(dim=(0, 2, 3))
        return (power.reshape(self.width, self.group).sum(dim=1) * read).sqrt()

    def keep(self, channels: Tensor) -> None:
        """Remove all channels but these, in place.

        Args:
            channels: their indices, as the reader sees them.
        """
        written = (channels[:, None] * self.group + torch.arange(self.group, device=channels.device)).flatten()
        for reader in self.readers:
            others = torch.arange(self.width, reader.in_channels, device=channels.device)
            _select(reader, "weight", 1, torch.cat([channels, others]))
            reader.in_channels = len(channels) + len(others)
        for layer in self.between:
            _keep_between(layer, written)
        for writer in self.writers:
            _select(writer, "weight", 0, written)
            _select(writer, "bias", 0, written)
            writer.out_channels = len(written)


@runtime_checkable
class Prunable(Protocol):
    """A block with inner channels."""

    def inner_channels(self) -> list[InnerChannels]: ...


def inner_channels(network: nn.Module) -> dict[str, InnerChannels]:
    """All inner channels of a network, by the name of the convolution that writes them."""
    names = {module: name for name, module in network.named_modules()}
    blocks = (module for module in network.modules() if isinstance(module, Prunable))
    return {names[inner.writers[0]]: inner for block in blocks for inner in block.inner_channels()}


def prune(network: nn.Module, share: float) -> dict[str, int]:
    """Remove a share of the inner channels of each block, the least important ones, in place.

    Args:
        network: a trained network.
        share: of the channels, 0 to 1; the number kept is rounded to a multiple of 8, at least 8.

    Returns:
        the number of channels left where some were removed, by the name of the convolution that writes them. It is
        empty if the network has no inner channels.
    """
    widths = {}
    for name, inner in inner_channels(network).items():
        width = max(_MULTIPLE, round(inner.width * (1 - share) / _MULTIPLE) * _MULTIPLE)
        if width < inner.width:
            inner.keep(inner.importance().topk(width).indices.sort().values)
            widths[name] = width
    return widths


def with_widths(network: nn.Module, widths: Mapping[str, int]) -> nn.Module:
    """The network with as many inner channels as `widths` says; parameters keep no meaning, only their shapes."""
    inner = inner_channels(network)
    for name, width in widths.items():
        inner[name].keep(torch.arange(width))
    return network


def _keep_between(layer: nn.Module, channels: Tensor) -> None:
    if isinstance(layer, nn.BatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(layer, name, 0, channels)
        layer.num_features = len(channels)
    elif isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels:  # depthwise
        _select(layer, "weight", 0, channels)
        _select(layer, "bias", 0, channels)
        layer.in_channels = layer.out_channels = layer.groups = len(channels)
    else:
        raise TypeError(f"{layer} has no parameters for each channel")


def _select(module: nn.Module, name: str, dim: int, indices: Tensor) -> None:
    old = getattr(module, name)
    if old is None:
        return
    new = old.detach().index_select(dim, indices.to(old.device))
    setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
