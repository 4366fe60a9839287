"""An end for what would never end: a process that hangs in one image is lost anyway, so it had better die of it."""

from __future__ import annotations

import contextlib
import faulthandler
import threading
import time
from collections.abc import Iterator

_STDERR = 2  # its number: sys.stderr may be something without one


class Deadline:
    """Ends this process when a block takes too long, whatever it does; the stack goes to stderr.

    faulthandler's timer is a thread of C, so it also ends C code that never gives the interpreter back. There is one
    timer in a process; blocks of several threads share it.

    Args:
        seconds: for each block.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._ends: dict[int, float] = {}

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """The block has to be over in time."""
        thread = threading.get_ident()
        with self._lock:
            self._ends[thread] = time.monotonic() + self._seconds
            if len(self._ends) == 1:
                self._set()
        try:
            yield
        finally:
            with self._lock:
                first = min(self._ends, key=lambda other: self._ends[other]) == thread
                del self._ends[thread]
                if first:
                    self._set()

    def _set(self) -> None:
        if self._ends:
            left = max(0.001, min(self._ends.values()) - time.monotonic())
            faulthandler.dump_traceback_later(left, exit=True, file=_STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()
