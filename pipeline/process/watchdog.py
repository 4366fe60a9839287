"""Kill a worker that exceeds its memory limit: a leak then costs one worker, not the node.

The watchdog is a separate process, so that code that never releases the GIL cannot block it. It runs this file as an
isolated script: import nothing from the project here. It needs /proc; on other systems there is no limit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_POLL_SECONDS = 0.1


def held_bytes(process: int | str = "self") -> int:
    """Resident memory of a process without shared and file-backed pages, bytes; 0 if unknown."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE


def guard(limit: int) -> None:
    """Start a watchdog that kills this process when it holds more than `limit` bytes."""
    if held_bytes():
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit)]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _watch(process: int, limit: int) -> None:
    while os.getppid() == process:  # ends with the process
        held = held_bytes(process)
        if held > limit:
            os.kill(process, signal.SIGKILL)  # first: printing may fail
            print(f"killed worker {process}: it used {held >> 20} MB, the limit is {limit >> 20} MB", file=sys.stderr)
            return
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]))
