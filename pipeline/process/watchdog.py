"""A limit for a worker's memory, held by a process beside it: a leak costs one worker, not the node.

The watcher stands outside, so that code which never gives the interpreter back cannot hold it up either. It needs
/proc; elsewhere there is no limit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SECONDS_BETWEEN_LOOKS = 0.1


def held_bytes(process: int | str = "self") -> int:
    """Memory that a process has for itself, without files that it has mapped; 0 where that is unknown."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE


def guard(limit: int) -> None:
    """Have this process killed as soon as it holds more than `limit` bytes."""
    if held_bytes():
        told = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit)]
        subprocess.Popen(told, stdin=subprocess.DEVNULL, start_new_session=True)


def _watch(process: int, limit: int) -> None:
    while os.getppid() == process:
        held = held_bytes(process)
        if held > limit:
            os.kill(process, signal.SIGKILL)  # before anything that could fail
            print(f"worker {process} held {held >> 20} MB, more than its {limit >> 20} MB: killed", file=sys.stderr)
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]))
