"""How PyTorch starts the operations of a network: one after the other, as one CUDA graph, or compiled.

A graph runs the same kernels as `eager`, so its results are equal to the last bit. Compiling fuses operations, which
rounds differently: it is never chosen by itself, so that all workers of a run round alike. `_CudaGraph` has never run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pipeline.errors import first_line

Mode = Literal["eager", "graph", "compile"]
Runner = Callable[[Tensor], Tensor]  # runs a network on batches of one shape

_GAIN = 0.95  # a graph is used if it takes at most this share of the time; it holds memory of its own
_WARM_UP, _TIMED = 3, 10  # calls


def make_runner(mode: Mode, module: nn.Module, inputs: Tensor) -> Runner:
    """A network in one mode, for batches like `inputs`.

    Raises:
        torch.OutOfMemoryError: the memory is too small.
        Exception: of any type, the network cannot be captured or compiled.
    """
    if mode == "graph":
        return _CudaGraph(module, inputs)
    if mode == "compile":
        compiled = torch.compile(module, dynamic=False)
        compiled(inputs)  # compiles
        return cast(Runner, compiled)
    return module


def fastest_runner(module: nn.Module, inputs: Tensor) -> tuple[Runner, str | None]:
    """The faster of a network as it is and its graph, by measuring both.

    Args:
        module: prepared for the device.
        inputs: a batch, on the device.

    Returns:
        the runner, and for the user why a graph does not work, None if it does.

    Raises:
        torch.OutOfMemoryError: the memory is too small for the network as it is.
    """
    eager = _seconds(module, inputs)
    try:
        graph = make_runner("graph", module, inputs)
        is_faster = _seconds(graph, inputs) <= _GAIN * eager
    except Exception as error:  # CUDA and PyTorch raise exceptions of many types
        return module, f"a network runs without a CUDA graph: {type(error).__name__}: {first_line(error)}"
    return (graph if is_faster else module), None


class _CudaGraph:
    """All kernels of a network, recorded once and started at once."""

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        self._inputs = inputs.clone()
        stream = torch.cuda.current_stream()
        apart = torch.cuda.Stream()
        apart.wait_stream(stream)
        with torch.cuda.stream(apart):
            for _ in range(_WARM_UP):  # so that libraries have chosen their kernels and have their memory
                module(self._inputs)
        stream.wait_stream(apart)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads upload images meanwhile, which must not end the recording.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = module(self._inputs)

    def __call__(self, inputs: Tensor) -> Tensor:
        self._inputs.copy_(inputs)
        self._graph.replay()
        return self._output.clone()  # the next call overwrites it


def _seconds(runner: Runner, inputs: Tensor) -> float:
    """Median time of a call."""

    def wait() -> None:
        if inputs.is_cuda:
            torch.cuda.current_stream().synchronize()

    times = []
    for _ in range(_WARM_UP + _TIMED):
        wait()
        started = time.perf_counter()
        runner(inputs)
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:])
