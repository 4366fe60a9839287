"""The time in which a device computes networks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

import torch

_Mark = float | torch.cuda.Event  # a moment: seconds of the host, or an event in a queue of the GPU


class ComputingTime:
    """Seconds in which a device computed at least one of the marked blocks; safe to use from several threads.

    On a GPU, a block is the time between two events in the queue of its stream, and nobody waits for them. Work of
    other streams that is queued meanwhile counts once.

    >>> computing = ComputingTime(torch.device("cpu"))
    >>> with computing():
    ...     pass
    >>> computing.take() >= 0
    True
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._lock = threading.Lock()
        self._blocks: list[tuple[_Mark, _Mark]] = []
        self._counted: _Mark | None = None  # until here; None before the first block

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A block that computes."""
        start = self._mark()
        try:
            yield
        finally:
            end = self._mark()
            with self._lock:
                self._blocks.append((start, end))

    def take(self) -> float:
        """Seconds since the last call. Blocks that a GPU has not finished count in a later call."""
        with self._lock:
            finished = [_is_over(end) for _, end in self._blocks]
            done = [block for block, over in zip(self._blocks, finished, strict=True) if over]
            self._blocks = [block for block, over in zip(self._blocks, finished, strict=True) if not over]
            if not done:
                return 0.0
            # All times are relative to a recent moment: CUDA gives them as float32.
            counted = self._counted or done[0][0]
            spans = [(_seconds(counted, start), _seconds(counted, end)) for start, end in done]
            last, end = max(enumerate(end for _, end in spans), key=lambda numbered: numbered[1])
            self._counted = done[last][1] if end > 0 else counted
            return covered(spans, since=0.0)

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


def _is_over(mark: _Mark) -> bool:
    return isinstance(mark, float) or mark.query()


def _seconds(start: _Mark, end: _Mark) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return start.elapsed_time(end) / 1000
    assert isinstance(start, float)
    assert isinstance(end, float)
    return end - start
