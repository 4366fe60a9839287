"""PyTorch modules as networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.runtime.device import Compute


class TorchNetwork:
    """A module with its weights, prepared for a device; see `Network`.

    Attributes:
        module: the module as `Compute.prepare` returns it.
    """

    input_size: tuple[int, int] | None = None
    batch_size: int | None = None
    runtime = "torch"

    def __init__(self, module: nn.Module, compute: Compute, metadata: Mapping[str, str] | None = None) -> None:
        """
        Args:
            module: the module with its weights; it is changed in place.
            metadata: of the weights file.
        """
        self.module = compute.prepare(module)
        self.metadata: Mapping[str, str] = metadata or {}
        self._compute = compute

    def __call__(self, inputs: Tensor) -> Tensor:
        c = self._compute
        return self.module(inputs.to(c.device, c.dtype, memory_format=torch.channels_last))
