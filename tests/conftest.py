"""Fixtures: the two kinds of storage, images made here, and the photographs where they are at hand."""

from __future__ import annotations

import io
import os
import secrets
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster import NUM_IMAGES, Cluster, ended_well, flags, free_port, rows, start_cluster
from faults import FAULTS, FaultProxy
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("POSEMILL_SHARED", PROJECT.parent / "shared"))
PEOPLE = SHARED / "people"
DEMO = PROJECT / "configs" / "demo"

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "posemilltestkey",
    "AWS_SECRET_ACCESS_KEY": "posemilltestsecret",
    "AWS_REGION": "us-east-1",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}

# Darknet's language: two convolutions and one person a cell of 16 pixels.
TINY_DETECTOR = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=6
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=32,32
classes=1
num=1
scale_x_y=2
"""

# Clusters are closed by a token, as they should be. A process reads this once, when it first meets Ray: so here.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
os.environ.update(RAY_metrics_report_interval_ms="1000")  # else ten seconds

needs_people = pytest.mark.skipif(not PEOPLE.is_dir(), reason="the photographs of ../shared/people are not here")
needs_reference = pytest.mark.skipif(
    not (SHARED / "reference").is_dir(), reason="the reference vectors of ../shared/reference are not here"
)
needs_models = pytest.mark.skipif(
    not (SHARED / "models").is_dir(), reason="the networks of ../shared/models are not here"
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The machine's own cache of weights and digests stays out of the tests."""
    os.environ["POSEMILL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


class S3Server:
    """A real S3 server on this machine, which can be killed and started again, behind a proxy that can do it harm.

    Attributes:
        faults: the proxy.
    """

    def __init__(self, root: Path) -> None:
        (root / "bucket").mkdir(parents=True)
        self._root = root
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.faults = FaultProxy(self._port)

    def start(self) -> None:
        keys = f"{S3_ENVIRONMENT['AWS_ACCESS_KEY_ID']},{S3_ENVIRONMENT['AWS_SECRET_ACCESS_KEY']}"
        rclone = Path(sys.executable).parent / "rclone"
        told = ["--auth-key", keys, "--addr", f"127.0.0.1:{self._port}", "--vfs-cache-mode=off"]
        with (self._root.parent / "log").open("ab") as log:
            self._process = subprocess.Popen([rclone, "serve", "s3", *told, self._root], stdout=log, stderr=log)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError("rclone serve s3 did not come up")

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The environment of this process and its children points to it."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "root")
    os.environ.update(S3_ENVIRONMENT, AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.faults.port}")
    yield server
    server.faults.close()
    server.kill()


@pytest.fixture
def s3_under_fire(s3: S3Server) -> Iterator[S3Server]:
    """The same server; whatever harm a test does ends with it."""
    yield s3
    s3.faults.share = 0.0
    s3.faults.faults = FAULTS


@pytest.fixture(scope="session")
def s3_server(s3: S3Server) -> str:
    """A bucket."""
    return "s3://bucket"


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place on each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "place")
    return f"{request.getfixturevalue('s3_server')}/{uuid.uuid4().hex[:12]}"


def encode(pixels: np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    """An encoded image, by Pillow."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form, **options)
    return sink.getvalue()


def gradient(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: smooth, so that JPEG keeps it, and without symmetry, so that a wrong turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, (x + 2 * y + 17 * seed) % 256]
    return np.stack(channels, axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def cluster(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One Ray cluster of two nodes for all tests; the S3 server is up before it, so that its workers know it too."""
    folder = tmp_path_factory.mktemp("ray")
    with start_cluster(folder, cpus=1) as started:
        started.add_node(folder)
        yield started


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six images in six shards; every one has its own bytes."""
    folder = tmp_path_factory.mktemp("photos")
    portrait = (DEMO / "photos" / "eileen_collins.jpg").read_bytes()
    for i in range(NUM_IMAGES):
        data = portrait + str(i).encode() if i % 3 else encode(gradient(60, 40 + i, seed=i))
        (folder / f"{i:03d}.jpg").write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, list]:
    """The rows of both tables, of a run that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    cluster.behave()
    text = cluster.run("annotate", *flags(photos, output), "--profile")
    assert ended_well(text)
    assert "where the time went" in text
    assert "wait for images" in text
    images, people = rows(str(output))
    assert len(images) == NUM_IMAGES
    assert len(people) >= NUM_IMAGES / 2
    return images, people
