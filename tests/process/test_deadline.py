import subprocess
import sys
import time

import pytest
from support.paths import PROJECT

HANGING = """
import ctypes, threading, time
from pipeline.process.deadline import Deadline, restart_deadline
deadline = Deadline({seconds})
def short_blocks():
    for _ in range(20):
        with deadline():
            time.sleep(0.05)
other = threading.Thread(target=short_blocks)
other.start()
with deadline():
    {block}
other.join()
time.sleep({seconds})
print("no time limit exceeded")
"""


def run(seconds: float, block: str) -> subprocess.CompletedProcess:
    code = HANGING.format(seconds=seconds, block=block)
    return subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("block", ["time.sleep(60)", "ctypes.PyDLL(None).sleep(60)"], ids=["python", "c"])
def test_a_hanging_block_ends_the_process(block: str) -> None:
    started = time.monotonic()
    process = run(1.5, block)
    assert time.monotonic() - started < 30
    assert process.returncode == 1
    assert "Timeout" in process.stderr
    assert "<module>" in process.stderr, "the stack of the hanging block"


def test_a_block_that_gets_on_may_take_longer() -> None:
    """Each of its steps has the whole time."""
    steps = "[(time.sleep(0.3), restart_deadline()) for _ in range(8)]"
    assert run(1.5, steps).stdout == "no time limit exceeded\n"
    assert run(1.5, f"{steps}; time.sleep(60)").returncode == 1


def test_each_thread_has_a_separate_time_limit() -> None:
    assert run(0.7, "time.sleep(1)").returncode == 1, "short blocks of another thread do not extend the limit"
    assert run(3, "time.sleep(1)").stdout == "no time limit exceeded\n"
