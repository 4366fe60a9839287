"""Seconds by pipeline stage, summed over all threads of a process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

# The stages of each thread of a worker. Ideally the networks' thread spends its time only in "detect" and "poses". If
# the detector has a separate thread, "detect" is the time that the networks' thread waits for boxes.
COMPUTING = "compute"  # of the device, by `pipeline.runtime.computing`; ideally all the time of the networks' thread
STAGES = {
    "read": ("read", "decode", "wait for room"),
    "networks": ("wait for images", "detect", "crop", "poses", "appearance"),
    "results": ("suppress", "write"),
    "device": (COMPUTING,),
}


class Stopwatch:
    """Sums the seconds of timed blocks by stage; safe to use from several threads.

    >>> watch = Stopwatch()
    >>> with watch("read"):
    ...     pass
    >>> list(watch.take())
    ['read']
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self._seconds[stage] += seconds

    def take(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        with self._lock:
            seconds, self._seconds = self._seconds, defaultdict(float)
            return dict(seconds)
