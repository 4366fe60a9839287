"""Fixtures: the two kinds of storage, a Ray cluster, and a small collection."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from support.browser import chromium
from support.cluster import NUM_IMAGES, Cluster, ended_well, flags, rows, start_cluster
from support.faults import FAULTS
from support.images import encode, gradient
from support.paths import DEMO
from support.s3 import S3_ENVIRONMENT, S3Server

from pipeline.process.end import end_process

_SESSION = pytest.StashKey[pytest.Session]()

# Neither holds tests, and importing them for doctests would change this process.
collect_ignore = ["fleet/drill.py", "support/hooks"]

# Two processes run the tests at the same time. With more threads than cores, each would mostly wait for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The clusters of the tests require a token. Ray reads these once per process, when it is imported.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
os.environ.update(RAY_metrics_report_interval_ms="1000")  # the default is ten seconds


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End like the jobs: Ray's threads could abort this process while the interpreter ends, after all tests passed."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        end_process(int(session.exitstatus))


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_SESSION] = session


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A fresh cache of weights and digests, so that tests do not depend on that of the machine."""
    os.environ["POSEMILL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server; the environment of this process and its children points to it."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "root")
    os.environ.update(S3_ENVIRONMENT, AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.faults.port}")
    yield server
    server.faults.close()
    server.kill()


@pytest.fixture
def s3_under_fire(s3: S3Server) -> Iterator[S3Server]:
    """The same server; faults that a test sets are removed after it."""
    yield s3
    s3.faults.share = 0.0
    s3.faults.kinds = FAULTS


@pytest.fixture(scope="session")
def s3_server(s3: S3Server) -> str:
    """The URI of a bucket."""
    return "s3://bucket"


@pytest.fixture
def s3_folder(s3_server: str) -> str:
    """An empty prefix of the bucket."""
    return f"{s3_server}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "place")
    return f"{request.getfixturevalue('s3_server')}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def cluster(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One Ray cluster of two nodes for all tests; its workers inherit the environment of the S3 server."""
    folder = tmp_path_factory.mktemp("ray")
    with start_cluster(folder, cpus=1) as started:
        started.add_node(folder)
        yield started


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six images in six shards, all with different bytes."""
    folder = tmp_path_factory.mktemp("photos")
    portrait = (DEMO / "photos" / "eileen_collins.jpg").read_bytes()
    for i in range(NUM_IMAGES):
        data = portrait + str(i).encode() if i % 3 else encode(gradient(60, 40 + i, seed=i))
        (folder / f"{i:03d}.jpg").write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def undisturbed_run(cluster: Cluster, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without failures."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    cluster.behave()
    text = cluster.run("annotate", *flags(photos, output), "--profile")
    assert ended_well(text)
    assert "time by stage, all workers" in text
    assert "computed networks:" in text
    assert "wait for images" in text
    return output


@pytest.fixture(scope="session")
def undisturbed(undisturbed_run: Path) -> tuple[list, list, list]:
    """The rows of the tables of that run."""
    images, people, others = rows(str(undisturbed_run))
    assert len(images) == NUM_IMAGES
    assert len(people) >= NUM_IMAGES / 2
    return images, people, others


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser
