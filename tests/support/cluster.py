"""A Ray cluster for tests, and jobs that run on it as a user runs them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa

from pipeline.run.tables import DERIVED_TABLES, WEAK, read_table
from support.paths import PROJECT

_HOOKS = PROJECT / "tests" / "support" / "hooks"

# The collection that the fleet's tests annotate: `photos` and `undisturbed` in conftest.
NUM_IMAGES = 36
FLAGS = (
    "--detector.name=whole_image",
    "--detector.batch=2",
    "--pose.batch=4",
    "--fleet.workers=2",
    "--fleet.cpus_per_worker=1",
)


def flags(photos: object, output: object) -> list[str]:
    """Six shards."""
    return [f"--input={photos}", f"--output={output}", "--input.shard_size=6", *FLAGS]


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        address: for RAY_ADDRESS.
        metrics: where Prometheus would look.
        hook: the file that makes decoding slow or deadly.
        process: `ray start --block`.
        nodes: the same of nodes that joined.
    """

    address: str
    metrics: str
    hook: Path
    process: subprocess.Popen[bytes]
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def behave(self, **behaviour: object) -> None:
        """Set what decoding does from now on; see hooks/sitecustomize.py."""
        temporary = self.hook.with_suffix(".new")
        temporary.write_text(json.dumps(behaviour))
        temporary.replace(self.hook)

    def start(self, job: str, *flags: str, hooked: bool = False) -> subprocess.Popen[str]:
        """Start a job without waiting for it, after the workers of the previous job have ended.

        Args:
            hooked: whether the driver itself also behaves as set.
        """
        wait_for(lambda: not self.workers())
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "jobs" / f"{job}.py"), *flags],
            cwd=PROJECT,
            env={**os.environ, **(_hooked(self.hook) if hooked else {}), "RAY_ADDRESS": self.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: str, *flags: str, code: int = 0) -> str:
        """The output of a job that ends with the expected exit code."""
        started = self.start(job, *flags)
        output, _ = started.communicate(timeout=240)
        assert started.returncode == code, output
        return output

    def workers(self, node: subprocess.Popen[bytes] | None = None, doing: str = "") -> list[psutil.Process]:
        """The worker processes of all nodes, or of one; with `doing`, only those in that method."""
        title = f"ray::Worker.{doing}" if doing else "ray::Worker"
        found = []
        for process in _children([node] if node else [self.process, *self.nodes]):
            with contextlib.suppress(psutil.Error):
                if process.cmdline() and process.cmdline()[0].startswith(title):
                    found.append(process)
        return found

    @property
    def logs(self) -> Path:
        """The folder of the logs of this cluster."""
        for process in _children([self.process]):
            for word in process.cmdline():
                if word.startswith("--session_dir="):
                    return Path(word.removeprefix("--session_dir=")) / "logs"
        raise RuntimeError("no process of the cluster has a session folder")

    def add_node(self, folder: Path, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Add a node, on this machine like the first; end it with `end`."""
        node = _start_node(folder, [f"--address={self.address}", f"--num-cpus={cpus}"], self.hook)
        self.nodes.append(node)
        return node


def _children(nodes: list[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    found = []
    for node in nodes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(node.pid).children(recursive=True)
    return found


@contextmanager
def start_cluster(folder: Path, cpus: int = 2, gpus: int = 0, dashboard: int | None = None) -> Iterator[Cluster]:
    """A head node with a port of its own for the block. Ray does not check that `gpus` exist.

    Args:
        dashboard: its port, where jobs are submitted; by default there is none.
    """
    port, metrics_port = free_port(), free_port()
    hook = folder / "hook.json"
    options = [f"--port={port}", f"--metrics-export-port={metrics_port}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
    dashboard_options = ["--include-dashboard=false"]
    if dashboard is not None:
        # Jobs are started by the node's agent, whose usual port another cluster on this machine may have.
        dashboard_options = [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"]
    process = _start_node(folder, ["--head", *options, *dashboard_options], hook)
    cluster = Cluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics", hook, process)
    cluster.behave()
    try:
        yield cluster
    finally:
        for node in (*cluster.nodes, process):
            end(node)


def _hooked(hook: Path) -> dict[str, str]:
    """The environment in which a process behaves as a file says."""
    return {"PYTHONPATH": f"{_HOOKS}{os.pathsep}{PROJECT}", "POSEMILL_TEST_HOOK": str(hook)}


def _start_node(folder: Path, options: list[str], hook: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        **_hooked(hook),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--node-ip-address=127.0.0.1"]
    path = folder / f"ray-{free_port()}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [*command, *options, f"--object-store-memory={200 << 20}"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    wait_for(lambda: "Ray runtime started" in path.read_text(), 60)
    return process


def end(node: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """End a node with all its processes; with SIGKILL, like a machine that loses power."""
    if node.returncode is not None:
        return
    processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in processes if number == signal.SIGKILL else processes[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    _, alive = psutil.wait_procs(processes, timeout=20)
    for left in alive:
        left.send_signal(signal.SIGKILL)
    node.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def ended_well(output: str) -> bool:
    """Whether the last lines of a job report the whole collection as annotated."""
    return f"{NUM_IMAGES} images ({NUM_IMAGES} ok)" in "".join(output.splitlines(keepends=True)[-8:])


def rows(run: str) -> tuple[list[dict], list[dict], list[str]]:
    """Images and people of a run as plain rows, in their stored order; and those of its other tables as text.

    As text, values that are unknown equal themselves.
    """
    images, people = (pa.concat_tables(list(read_table(run, name))).to_pylist() for name in ("images", "people"))
    others = [repr(row) for name in (WEAK, *DERIVED_TABLES) for t in read_table(run, name) for row in t.to_pylist()]
    return images, people, others


def parts(output: Path) -> dict[str, int]:
    """The parts of a local run, and the time when each was written."""
    return {p.name: p.stat().st_mtime_ns for p in output.glob("parts/*.parquet")}
