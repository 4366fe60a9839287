"""The time in which a device computes networks."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

_Mark = float | torch.cuda.Event  # a moment: seconds of the host, or an event in a queue of the GPU
_MANY = 256  # blocks are counted, so that a process in which nobody takes the time does not keep them all


@dataclass(eq=False)
class _Block:
    start: _Mark
    end: _Mark | None = None


class ComputingTime:
    """Seconds in which a device had at least one of the marked blocks to compute; safe to use from several threads.

    On a GPU, a block is the time between two events in the queue of its stream, and nobody waits for them; so gaps
    between the kernels of a block count. Blocks of several streams at the same time count once.

    >>> computing = ComputingTime(torch.device("cpu"))
    >>> with computing():
    ...     pass
    >>> computing.take() >= 0
    True
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []  # not counted yet
        self._counted: _Mark | None = None  # until here; None before the first block
        self._seconds = 0.0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A block that computes."""
        block = _Block(self._mark())
        with self._lock:
            self._blocks.append(block)
        try:
            yield
        finally:
            block.end = self._mark()
            with self._lock:
                if len(self._blocks) > _MANY:
                    self._count()

    def take(self) -> float:
        """Seconds since the last call; blocks that are not finished, and those beside them, count in a later one."""
        with self._lock:
            self._count()
            seconds, self._seconds = self._seconds, 0.0
            return seconds

    def _count(self) -> None:
        """Add the time of finished blocks that end before any unfinished one starts."""
        finished = [block for block in self._blocks if _is_over(block.end)]
        if not finished:
            return
        # All times are relative to a recent moment: CUDA gives them as float32. A block whose start has not been
        # reached starts after all that is finished.
        origin = self._counted or finished[0].start
        running = [block for block in self._blocks if block not in finished and _is_over(block.start)]
        limit = min((_seconds(origin, block.start) for block in running), default=math.inf)
        ends = {block: _seconds(origin, block.end) for block in finished}
        done = [block for block in finished if ends[block] <= limit]
        if done:
            self._blocks = [block for block in self._blocks if block not in done]
            self._seconds += covered([(_seconds(origin, block.start), ends[block]) for block in done], since=0.0)
            last = max(done, key=lambda block: ends[block])
            self._counted = last.end if ends[last] > 0 else origin

    def _mark(self) -> _Mark:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def covered(spans: Iterable[tuple[float, float]], since: float) -> float:
    """The length of the union of spans (start, end) after `since`.

    >>> covered([(1.0, 3.0), (2.0, 5.0), (7.0, 8.0)], since=2.0)
    4.0
    """
    total, until = 0.0, since
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _is_over(mark: _Mark | None) -> bool:
    """Whether the device has reached a moment."""
    return mark is not None and (isinstance(mark, float) or mark.query())


def _seconds(start: _Mark | None, end: _Mark | None) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return start.elapsed_time(end) / 1000
    assert isinstance(start, float)
    assert isinstance(end, float)
    return end - start
