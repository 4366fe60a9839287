"""How PyTorch starts the operations of a network: one after the other, as one CUDA graph, or compiled.

A graph runs the same kernels as `eager`, so its results are equal to the last bit. Compiling fuses operations, which
rounds differently. Never run on a GPU so far: `_CudaGraph` and the measurement there.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pipeline import storage
from pipeline.errors import first_line

Mode = Literal["eager", "graph", "compile"]
Runner = Callable[[Tensor], Tensor]  # runs a network on a batch of one shape

_BUDGET_SECONDS = 60.0  # no further mode is tried after this; a compilation that has begun is finished
_GAIN = 0.95  # a mode replaces a simpler one if it takes at most this share of its time
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


def fastest_runner(
    module: nn.Module, inputs: Tensor, modes: tuple[Mode, ...] = ("eager", "graph", "compile")
) -> tuple[Mode, Runner, str | None]:
    """The network in the mode that is fastest on this device, by measuring, or by an earlier measurement.

    The choice is remembered in the cache of the machine: for the device, the version of PyTorch, the layers of the
    network, and the shape of the batch.

    Args:
        module: prepared for the device.
        inputs: a batch, on the device.
        modes: what to try, the simplest first; the first must work.

    Returns:
        the mode, the network in it, and for the user why another mode does not work, None if all do.

    Raises:
        torch.OutOfMemoryError: the memory is too small for the first mode.
    """
    memory = _memory(module, inputs)
    note = None
    try:
        known = json.loads(memory.read_text())
        if known in modes:
            return known, make_runner(known, module, inputs), None
    except (OSError, ValueError):
        pass
    except Exception as error:  # torch.compile raises exceptions of many types
        note = _failed(known, error)
    best: tuple[float, Mode, Runner] | None = None
    started = time.perf_counter()
    for mode in modes:
        if best is not None and time.perf_counter() - started > _BUDGET_SECONDS:
            break
        try:
            runner = make_runner(mode, module, inputs)
            seconds = _seconds(runner, inputs)
        except Exception as error:
            if best is None:
                raise
            note = _failed(mode, error)
            continue
        if best is None or seconds <= _GAIN * best[0]:
            best = seconds, mode, runner
    assert best is not None
    _, chosen, runner = best
    memory.parent.mkdir(parents=True, exist_ok=True)
    written = memory.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(chosen))
    os.replace(written, memory)
    return chosen, runner, note


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


def _memory(module: nn.Module, inputs: Tensor) -> Path:
    """The file that remembers the choice."""
    device = torch.cuda.get_device_name(inputs.device) if inputs.is_cuda else "cpu"
    shapes = [(name, tuple(values.shape), str(values.dtype)) for name, values in module.named_parameters()]
    facts = (device, torch.__version__, str(module), shapes, tuple(inputs.shape), str(inputs.dtype))
    return storage.cache_folder() / "modes" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"


def _failed(mode: Mode, error: Exception) -> str:
    return f"a network runs without mode {mode} on this machine: {type(error).__name__}: {first_line(error)}"
