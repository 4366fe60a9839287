"""PyTorch modules as networks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import UserError, first_line
from pipeline.runtime.device import OTHER_PRECISION, Compute
from pipeline.runtime.modes import Runner, fastest_runner, make_runner

_MODE_SHAPES = 4  # batches of more shapes than this run eagerly: each graph holds memory, each compilation takes time
_MAKING = threading.Lock()  # a process records one graph at a time, and measures nothing else meanwhile


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
        self._runners: dict[torch.Size, Runner] = {}  # by the shape of the batch
        self._at_a_time: int | None = None  # rows of a batch, after the memory was too small for more
        self._is_checked = compute.dtype != torch.float16

    def __call__(self, inputs: Tensor) -> Tensor:
        """
        Raises:
            torch.OutOfMemoryError: the memory of the GPU is too small for a single row.
            UserError: values are too large for fp16, the first batch is checked; or the network cannot run in the mode
                that the settings name.
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
                    return self._run_piece(inputs)
                return torch.cat([self._run_piece(piece) for piece in inputs.split(count)])
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
                self._at_a_time = -(-count // 2)
            self._runners.clear()  # graphs of larger batches hold memory
            torch.cuda.empty_cache()  # after the error is gone, which holds the memory of the failed attempt
            self._compute.notes.add(
                f"the memory of a GPU is too small for a batch of {count}; it is run in pieces of {self._at_a_time}"
            )

    def _run_piece(self, inputs: Tensor) -> Tensor:
        is_plain = self._compute.mode == "eager" or (
            self._compute.mode == "auto" and self._compute.device.type == "cpu"
        )
        runner = self.module if is_plain else self._runner(inputs)
        with self._compute.computing():
            return runner(inputs)

    def _runner(self, inputs: Tensor) -> Runner:
        """What runs batches of the shape of `inputs`."""
        with _MAKING:
            if inputs.shape not in self._runners:
                if len(self._runners) == _MODE_SHAPES:
                    return self.module
                self._runners[inputs.shape] = self._make_runner(inputs)
            return self._runners[inputs.shape]

    def _make_runner(self, inputs: Tensor) -> Runner:
        mode = self._compute.mode
        if mode == "auto":
            runner, note = fastest_runner(self.module, inputs)
            if note is not None:
                self._compute.notes.add(note)
            return runner
        try:
            return make_runner(mode, self.module, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch.compile raises exceptions of many types
            raise UserError(
                f"--compute.mode {mode} cannot run a network on this machine ({type(error).__name__}: "
                f"{first_line(error)}); leave it out"
            ) from None
