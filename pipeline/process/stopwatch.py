"""Where the time goes: seconds by stage, of all threads of a process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

# What a worker's threads do; the networks' should do nothing but detect and pose. Where the detector has a thread of
# its own, what counts is how long the networks' thread waits for boxes.
STAGES = {
    "read": ("read", "decode", "wait for room"),
    "networks": ("wait for images", "detect", "crop", "poses"),
    "results": ("suppress", "write"),
}


class Stopwatch:
    """Adds up what it is told from any thread.

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
        """Count the block's seconds for a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self._seconds[stage] += seconds

    def take(self) -> dict[str, float]:
        """Seconds by stage since this was last asked."""
        with self._lock:
            taken, self._seconds = self._seconds, defaultdict(float)
            return dict(taken)
