"""The drill: a run of 200 shards of images and a video with ten minutes of failures, then the count of rows.

  uv run tests/fleet/drill.py
  uv run tests/fleet/drill.py --minutes 3 --shards 60 --seed 1

A cluster of two nodes and an S3 server run on this machine. Every 3 to 12 seconds a worker, a node, the driver or the
head node is killed with SIGKILL, or the S3 server is stopped for some seconds. One in twenty requests to the server is
refused, reset, truncated, answered with a lost response, or stalled. A dead driver or head node is started again. After
the time is over, the run finishes without failures. Exit code 1 if an image is lost or doubled, or a row differs from
those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

os.environ.update(
    RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_gcs_rpc_server_reconnect_timeout_s="5"
)
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import numpy as np
from support.cluster import Cluster, end, rows, start_cluster
from support.images import encode, gradient
from support.paths import DEMO
from support.s3 import S3_ENVIRONMENT, S3Server
from support.videos import write_clip

from pipeline import storage
from pipeline.images import decode_image

IMAGES_PER_SHARD = 25
FRAMES_PER_SHARD = 5  # of a video beside the images, for each shard of these
SECONDS_BETWEEN_FAULTS = (3, 12)
KINDS = {"worker": 5, "node": 2, "driver": 2, "head": 1, "server": 1}  # relative frequencies


def _moving(jpeg: bytes, count: int) -> list[np.ndarray]:
    """Frames of a photograph that goes to the right."""
    pixels = decode_image(jpeg).pixels[::2, ::2]
    pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
    return [np.ascontiguousarray(np.roll(pixels, number, axis=1)) for number in range(count)]


class Drill:
    """The cluster, the server and the job; each may be killed and is started again."""

    def __init__(self, folder: Path, server: S3Server, shards: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.exits: Counter[int] = Counter()
        self._folder = folder
        self._server = server
        self._heads = 0
        self._stack = ExitStack()
        self.photos, self.run = "s3://bucket/photos", "s3://bucket/run"
        portrait = (DEMO / "photos" / "eileen_collins.jpg").read_bytes()
        for number in range(shards * IMAGES_PER_SHARD):
            pattern = encode(gradient(self.random.randint(60, 200), self.random.randint(60, 200), seed=number))
            data = pattern if number % 3 else portrait
            storage.write_bytes(f"{self.photos}/{number:06d}.jpg", data + str(number).encode())
        clip = write_clip(folder / "clip.mp4", _moving(portrait, shards * FRAMES_PER_SHARD), options={"g": "10"})
        storage.write_bytes(f"{self.photos}/clip.mp4", clip.read_bytes())
        self._log = (folder / "driver.log").open("ab")
        self.start_head()
        self.job = self.start_driver(self.run)

    def start_head(self) -> None:
        self._heads += 1
        folder = self._folder / f"head{self._heads}"
        folder.mkdir()
        self.cluster: Cluster = self._stack.enter_context(start_cluster(folder, cpus=1))
        self.node = self.cluster.add_node(folder)

    def start_driver(self, run: str) -> subprocess.Popen[bytes]:
        arguments = [f"--input={self.photos}", f"--output={run}", f"--input.shard_size={IMAGES_PER_SHARD}"]
        arguments += ["--detector.name=whole_image", "--fleet.cpus_per_worker=1", "--fleet.workers=2"]
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address}
        return subprocess.Popen(
            [sys.executable, "jobs/annotate.py", *arguments], env=environment, stdout=self._log, stderr=self._log
        )

    def strike(self) -> None:
        kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
        workers = self.cluster.workers()
        if kind == "worker" and not workers:
            return
        self.done[kind] += 1
        print(f"{time.strftime('%X')}  kill -9 of a {kind}", flush=True)
        if kind == "worker":
            self.random.choice(workers).kill()
        elif kind == "node":
            end(self.node, signal.SIGKILL)
            self.node = self.cluster.add_node(self._folder / f"head{self._heads}")
        elif kind == "driver":
            self.job.kill()
        elif kind == "head":
            end(self.node, signal.SIGKILL)
            end(self.cluster.process, signal.SIGKILL)
            self.job.wait()
            self.exits[self.job.returncode] += 1
            self.start_head()
            self.job = self.start_driver(self.run)
        else:
            self._server.kill()
            time.sleep(self.random.uniform(1, 8))
            self._server.start()

    def under_fire(self, seconds: float) -> None:
        over = time.monotonic() + seconds
        while time.monotonic() < over and not self.finished():
            time.sleep(self.random.uniform(*SECONDS_BETWEEN_FAULTS))
            self.strike()

    def finished(self) -> bool:
        """Whether the job is complete; a driver that ended otherwise is started again."""
        if self.job.poll() is None:
            return False
        self.exits[self.job.returncode] += 1
        if self.job.returncode == 0:
            return True
        if self.job.returncode != -signal.SIGKILL:
            lines = (self._folder / "driver.log").read_text(errors="replace").splitlines()[-3:]
            print(
                f"{time.strftime('%X')}  the driver ended with {self.job.returncode}:", *lines, sep="\n    ", flush=True
            )
        self.job = self.start_driver(self.run)
        return False

    def finish(self) -> None:
        while not self.finished():
            time.sleep(1)

    def close(self) -> None:
        if self.job.poll() is None:
            self.job.kill()
        end(self.node)
        self._stack.close()


@contextmanager
def _server(folder: Path):  # type: ignore[no-untyped-def]
    server = S3Server(folder)
    os.environ.update(S3_ENVIRONMENT, AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.faults.port}")
    try:
        yield server
    finally:
        server.faults.close()
        server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="maximum time with failures (default: 10)")
    parser.add_argument("--shards", type=int, default=200, help=f"shards of {IMAGES_PER_SHARD} images (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the failures (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, _server(Path(name) / "s3") as server:
        drill = Drill(Path(name), server, options.shards, options.seed)
        try:
            started = time.monotonic()
            server.faults.share = 0.05
            drill.under_fire(60 * options.minutes)
            server.faults.share = 0.0
            seconds = time.monotonic() - started
            drill.finish()
            undisturbed = drill.start_driver("s3://bucket/undisturbed").wait()
            assert undisturbed == 0, "the undisturbed run failed"
        finally:
            drill.close()
        images, people, others = rows(drill.run)
        same = (images, people, others) == rows("s3://bucket/undisturbed")
    wanted = {f"{number:06d}.jpg" for number in range(options.shards * IMAGES_PER_SHARD)}
    wanted |= {f"clip.mp4/{number:09d}" for number in range(options.shards * FRAMES_PER_SHARD)}
    rows_by_id = Counter(row["image_id"] for row in images)
    lost, doubled = len(wanted - rows_by_id.keys()), sum(count > 1 for count in rows_by_id.values())
    print(f"{seconds:.0f} s with failures: killed {dict(drill.done)}; requests disturbed {dict(server.faults.done)}")
    print(f"drivers ended with {dict(drill.exits)}")
    print(f"{len(wanted)} images in, {len(images)} rows out, lost {lost}, doubled {doubled}, {len(people)} people")
    print(f"{len(others)} rows of tracks, motion and events")
    print("rows equal those of an undisturbed run" if same else "ROWS DIFFER from those of an undisturbed run")
    return int(bool(lost or doubled or not same))


if __name__ == "__main__":
    sys.exit(main())
