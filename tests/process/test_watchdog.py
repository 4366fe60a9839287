import os
import signal
import subprocess
import sys
import time

import psutil
from support.paths import PROJECT

from pipeline.process.watchdog import held_bytes

GUARDED = "import time; from pipeline.fleet.guard import guard; guard(400 << 20); {then}"


def test_what_a_process_holds() -> None:
    code = "from pipeline.fleet.guard import held_bytes as held; a = held(); b = b'x' * (64 << 20); print(held() - a)"
    grown = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=True).stdout
    assert 60 << 20 < int(grown) < 70 << 20
    assert held_bytes(os.getpid()) > 10 << 20
    assert held_bytes(2**22 + 1) == 0, "no such process"


def test_a_process_over_its_limit_is_killed_and_its_watcher_ends() -> None:
    greedy = GUARDED.format(then="held = [b'x' * (8 << 20) for _ in range(2000) if not time.sleep(0.005)]")
    ended = subprocess.run([sys.executable, "-c", greedy], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert "more than its 400 MB: killed" in ended.stderr


def test_a_watcher_ends_with_its_process() -> None:
    told = GUARDED.format(then="print('on', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", told], cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    (watcher,) = psutil.Process(process.pid).children()
    time.sleep(0.5)
    assert watcher.is_running()
    process.kill()
    process.communicate()
    watcher.wait(timeout=10)
