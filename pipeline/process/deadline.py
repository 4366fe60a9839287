"""Kill this process if a block exceeds its time limit: a hung C decoder cannot be interrupted."""

from __future__ import annotations

import contextlib
import faulthandler
import threading
import time
from collections.abc import Iterator

_STDERR = 2  # the file descriptor: sys.stderr may be an object without one
_RESTARTED_SHARE = 0.1  # of its time that a block must have used, so that restarting is not done for nothing

_running = threading.local()  # the deadline of the block of this thread


class Deadline:
    """Exits this process if a block exceeds its time limit, and prints the stacks of all threads to stderr.

    The timer of faulthandler is a C thread, so it also ends C code that never releases the GIL. A process has one such
    timer; the blocks of all threads share it.

    Args:
        seconds: time limit of each block.

    >>> deadline = Deadline(60.0)
    >>> with deadline():
    ...     pass
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._ends: dict[int, float] = {}  # thread to the end of its block, seconds of time.monotonic

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Limit the time of the block; one block per thread at a time."""
        thread = threading.get_ident()
        with self._lock:
            self._ends[thread] = time.monotonic() + self._seconds
            if len(self._ends) == 1:
                self._set_timer()
        _running.deadline = self
        try:
            yield
        finally:
            _running.deadline = None
            with self._lock:
                was_next = min(self._ends, key=lambda other: self._ends[other]) == thread
                del self._ends[thread]
                if was_next:
                    self._set_timer()

    def restart(self) -> None:
        """Give the block of this thread its whole time again."""
        thread, now = threading.get_ident(), time.monotonic()
        if self._ends[thread] - now < (1 - _RESTARTED_SHARE) * self._seconds:
            with self._lock:
                self._ends[thread] = now + self._seconds
                self._set_timer()

    def _set_timer(self) -> None:
        if self._ends:
            seconds_left = max(0.001, min(self._ends.values()) - time.monotonic())
            faulthandler.dump_traceback_later(seconds_left, exit=True, file=_STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()


def restart_deadline() -> None:
    """Give the block of this thread its whole time again, if it has a deadline: it got on by one of many steps."""
    deadline: Deadline | None = getattr(_running, "deadline", None)
    if deadline is not None:
        deadline.restart()
