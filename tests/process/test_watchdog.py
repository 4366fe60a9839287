import os
import signal
import subprocess
import sys
import time

import psutil
from support.paths import PROJECT

from pipeline.process.watchdog import held_bytes

GUARDED = "import time; from pipeline.process.watchdog import guard; guard(400 << 20); {then}"


def test_held_bytes_is_the_private_memory_of_a_process() -> None:
    code = (
        "from pipeline.process.watchdog import held_bytes as held; a = held(); b = b'x' * (64 << 20); print(held() - a)"
    )
    growth = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=True).stdout
    assert 60 << 20 < int(growth) < 70 << 20
    assert held_bytes(os.getpid()) > 10 << 20
    assert held_bytes(2**22 + 1) == 0, "no such process"


def test_a_process_over_its_limit_is_killed() -> None:
    leaking = GUARDED.format(then="held = [b'x' * (8 << 20) for _ in range(2000) if not time.sleep(0.005)]")
    process = subprocess.run([sys.executable, "-c", leaking], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "killed worker" in process.stderr
    assert "the limit is 400 MB" in process.stderr


def test_a_watchdog_ends_with_its_process() -> None:
    waiting = GUARDED.format(then="print('on', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", waiting], cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    (watchdog,) = psutil.Process(process.pid).children()
    time.sleep(0.5)
    assert watchdog.is_running()
    process.kill()
    process.communicate()
    watchdog.wait(timeout=10)
