"""The end of a process: output, exit code, and threads that are left."""

from __future__ import annotations

import os
import subprocess
import sys

from support.paths import PROJECT

SCRIPT = """
import atexit, sys, threading
from pipeline.process.end import end_process
atexit.register(print, "the interpreter ended")
threading.Thread(target=threading.Event().wait).start()  # never ends
print("all the output")
print("and errors", file=sys.stderr)
end_process({code})
"""


def run(code: int, **streams: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(code=code)]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # unbuffered, `print` itself would fail
    return subprocess.run(
        command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True, timeout=60, **streams
    )


def test_everything_is_printed_and_no_thread_is_waited_for() -> None:
    for code in (0, 3):
        done = run(code, stdout=subprocess.PIPE)
        assert (done.returncode, done.stdout, done.stderr) == (code, "all the output\n", "and errors\n")


def test_output_that_cannot_be_written_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        assert run(0, stdout=full.fileno()).returncode == 120
        assert run(2, stdout=full.fileno()).returncode == 2
