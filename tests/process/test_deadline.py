import subprocess
import sys
import time

import pytest
from support.paths import PROJECT

HANGING = """
import ctypes, threading, time
from pipeline.deadline import Deadline
deadline = Deadline({seconds})
def in_time():
    for _ in range(20):
        with deadline():
            time.sleep(0.05)
other = threading.Thread(target=in_time)
other.start()
with deadline():
    {block}
other.join()
time.sleep({seconds})
print("all in time")
"""


def run(seconds: float, block: str) -> subprocess.CompletedProcess:
    code = HANGING.format(seconds=seconds, block=block)
    return subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("block", ["time.sleep(60)", "ctypes.PyDLL(None).sleep(60)"], ids=["python", "c"])
def test_a_block_that_hangs_ends_the_process(block: str) -> None:
    began = time.monotonic()
    ended = run(1.5, block)
    assert time.monotonic() - began < 30
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "<module>" in ended.stderr, "where it hung"


def test_blocks_of_several_threads_each_have_their_time() -> None:
    assert run(0.7, "time.sleep(1)").returncode == 1, "the others' short blocks give this one no more time"
    assert run(3, "time.sleep(1)").stdout == "all in time\n"
