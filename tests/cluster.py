"""A Ray cluster of the tests' own, and jobs run on it as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa

from pipeline.tables import read_table

PROJECT = Path(__file__).resolve().parents[1]
_HOOKS = PROJECT / "tests" / "fleet" / "hooks"


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        address: for RAY_ADDRESS.
        hook: the file that makes decoding slow or deadly.
        process: `ray start --block`.
    """

    address: str
    hook: Path
    process: subprocess.Popen[bytes]

    def behave(self, **told: object) -> None:
        """What decoding does from now on; see hooks/sitecustomize.py."""
        temporary = self.hook.with_suffix(".new")
        temporary.write_text(json.dumps(told))
        temporary.replace(self.hook)

    def start(self, job: str, *flags: str) -> subprocess.Popen[str]:
        """A job, started and not waited for; the workers of the one before are gone by then."""
        wait_for(lambda: not self.workers())
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "jobs" / f"{job}.py"), *flags],
            cwd=PROJECT,
            env={**os.environ, "RAY_ADDRESS": self.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: str, *flags: str, code: int = 0) -> str:
        """A job's output, once it has ended with the expected exit code."""
        started = self.start(job, *flags)
        output, _ = started.communicate(timeout=240)
        assert started.returncode == code, output
        return output

    def workers(self) -> list[psutil.Process]:
        """The worker processes at this moment."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if process.cmdline() and process.cmdline()[0].startswith("ray::Worker"):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@contextmanager
def start_cluster(folder: Path, cpus: int = 2) -> Iterator[Cluster]:
    """Start a head node with its own port, and end just it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hook = folder / "hook.json"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{_HOOKS}{os.pathsep}{PROJECT}",
        "POSEMILL_TEST_HOOK": str(hook),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    options = [
        f"--port={port}",
        f"--num-cpus={cpus}",
        "--include-dashboard=false",
        f"--object-store-memory={200 << 20}",
    ]
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    cluster = Cluster(f"127.0.0.1:{port}", hook, process)
    cluster.behave()
    try:
        wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text(), 60)
        yield cluster
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, alive = psutil.wait_procs([psutil.Process(process.pid), *children], timeout=20)
        for left in alive:
            left.send_signal(signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def rows(run: str) -> tuple[list[dict], list[dict]]:
    """Both tables of a run as plain rows, sorted as they are stored."""
    images, people = (pa.concat_tables(list(read_table(run, name))).to_pylist() for name in ("images", "people"))
    return images, people
