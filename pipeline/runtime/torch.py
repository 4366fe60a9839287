"""PyTorch modules as networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.runtime.device import Compute


class TorchNetwork:
    """A module with its weights, prepared for a device; see `Network`.

    Attributes:
        module: in evaluation mode, folded, channels last, in the precision of the device.
    """

    input_size: tuple[int, int] | None = None
    batch_size: int | None = None

    def __init__(self, module: nn.Module, compute: Compute, metadata: Mapping[str, str] | None = None) -> None:
        """
        Args:
            module: changed in place.
        """
        self.module = compute.prepare(module)
        self.metadata: Mapping[str, str] = metadata or {}
        self._dtype = compute.dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.module(inputs.to(self._dtype, memory_format=torch.channels_last))
