"""PyTorch modules as networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.runtime.device import OTHER_PRECISION, Compute


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
        self._at_a_time: int | None = None  # rows of a batch, after the memory was too small for more
        self._is_checked = compute.dtype != torch.float16

    def __call__(self, inputs: Tensor) -> Tensor:
        """
        Raises:
            torch.OutOfMemoryError: the memory of the GPU is too small for a single row.
            UserError: values are too large for fp16; the first batch is checked.
        """
        c = self._compute
        output = self._run(inputs.to(c.device, c.dtype, memory_format=torch.channels_last))
        if not self._is_checked:
            if not bool(output.isfinite().all()):
                raise UserError(f"a network gives values that are too large for fp16; {OTHER_PRECISION}")
            self._is_checked = True
        return output

    def _run(self, inputs: Tensor) -> Tensor:
        """The output; in halves, quarters, ... of the batch from the first time on that the memory is too small."""
        while True:
            count = min(self._at_a_time or len(inputs), len(inputs))
            try:
                if count == len(inputs):
                    return self.module(inputs)
                return torch.cat([self.module(piece) for piece in inputs.split(count)])
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
                self._at_a_time = -(-count // 2)
            torch.cuda.empty_cache()  # after the error is gone, which holds the memory of the failed attempt
            self._compute.notes.add(
                f"the memory of a GPU is too small for a batch of {count}; it is run in pieces of {self._at_a_time}"
            )
