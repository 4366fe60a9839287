"""End a process whose libraries left threads behind."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

_CANNOT_WRITE = 120  # what Python itself exits with if its output cannot be flushed


def end_process(code: int) -> NoReturn:
    """Flush the output and exit at once, without taking the interpreter down.

    After `ray.shutdown()` Ray keeps C++ threads that can still ask for Python's lock, to free a buffer for example.
    While the interpreter ends, Python unwinds the stack of such a thread; Ray takes that for a crash and aborts the
    process, so that a finished job would exit with a signal. Call it last: functions registered with `atexit` do not
    run.

    Args:
        code: the exit code; 120 instead if the output cannot be written.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk; a closed stream
            code = code or _CANNOT_WRITE
            with contextlib.suppress(OSError, ValueError):
                stream.close()
    os._exit(code)
