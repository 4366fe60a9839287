"""Nodes, heads, disks and networks that fail under a run: its tables equal those of an undisturbed one, row for row."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.cluster import FLAGS, Cluster, end, ended_well, flags, parts, rows, start_cluster, wait_for
from support.faults import FAULTS
from support.paths import DEMO
from support.s3 import S3Server
from support.videos import write_clip

from pipeline import storage
from pipeline.images import decode_image
from pipeline.run import Run

pytestmark = pytest.mark.slow


def test_a_node_dies_and_the_others_continue(cluster: Cluster, photos: Path, undisturbed, tmp_path: Path) -> None:
    node = cluster.add_node(tmp_path)
    try:
        cluster.behave(sleep=1.5)  # so that work is left when the worker of that node has started
        job = cluster.start("annotate", *flags(photos, tmp_path / "run"), "--fleet.workers=3")
        wait_for(lambda: cluster.workers(node, doing="annotate") and parts(tmp_path / "run"))
        end(node, signal.SIGKILL)
        cluster.behave()
        output, _ = job.communicate(timeout=200)
    finally:
        end(node, signal.SIGKILL)
    assert job.returncode == 0, output
    assert "workers died" in output
    assert ended_well(output)
    assert rows(str(tmp_path / "run")) == undisturbed


def test_the_head_dies_and_the_job_is_given_to_another_cluster(
    cluster: Cluster, photos: Path, undisturbed, tmp_path: Path, monkeypatch
) -> None:
    # A driver waits a minute for its head to return; here five seconds.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    run = tmp_path / "run"
    (tmp_path / "first").mkdir()
    with start_cluster(tmp_path / "first") as first:
        first.behave(sleep=0.3)
        job = first.start("annotate", *flags(photos, run))
        wait_for(lambda: parts(run))
        end(first.process, signal.SIGKILL)
        output, _ = job.communicate(timeout=120)
    print(output)
    assert job.returncode == 1, output
    before = parts(run)
    assert 0 < len(before) < 6
    cluster.behave()
    output = cluster.run("annotate", *flags(photos, run))
    assert "are already done" in output
    assert ended_well(output)
    assert {name: parts(run)[name] for name in before} == before
    assert rows(str(run)) == undisturbed


def test_two_drivers_on_one_run(cluster: Cluster, photos: Path, undisturbed, tmp_path: Path) -> None:
    cluster.behave(sleep=0.05)
    arguments = [*flags(photos, tmp_path / "run"), "--fleet.workers=1"]
    first = cluster.start("annotate", *arguments)
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    second = subprocess.Popen(first.args, env=environment, stdout=subprocess.PIPE, text=True)
    for job in (first, second):
        output, _ = job.communicate(timeout=240)
        assert job.returncode == 0, output
        assert ended_well(output)
    assert rows(str(tmp_path / "run")) == undisturbed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "posemill", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_the_job_and_it_resumes_with_space(
    cluster: Cluster, photos: Path, undisturbed, tmp_path: Path, small_disk: Path
) -> None:
    cluster.behave()
    run = small_disk / "run"
    filler = small_disk / "filler"
    left = 40_000
    filler.write_bytes(b"x" * (2**20 - left))
    output = cluster.run("annotate", *flags(photos, run), code=1)
    assert "No space left on device" in output
    assert "then rerun the same command to resume" in output
    assert len(parts(run)) < 6
    assert not list(run.glob("parts/.*")), "no unfinished file is left"
    filler.unlink()
    assert ended_well(cluster.run("annotate", *flags(photos, run)))
    assert rows(str(run)) == undisturbed


@pytest.fixture(scope="module")
def stored(s3_server: str, photos: Path) -> str:
    """The same collection on S3."""
    for path in sorted(photos.iterdir()):
        storage.write_bytes(f"{s3_server}/fire/photos/{path.name}", path.read_bytes())
    return f"{s3_server}/fire"


def anywhere(tables: tuple[list[dict], list[dict], list[str]]) -> list[dict]:
    """Rows without the columns that depend on where the collection is stored."""
    return [{k: v for k, v in row.items() if k not in ("uri", "shard")} for table in tables[:2] for row in table]


def test_a_server_that_is_down_for_half_a_minute(
    cluster: Cluster, stored: str, undisturbed, s3_under_fire: S3Server
) -> None:
    cluster.behave(sleep=0.15)
    run = f"{stored}/away"
    job = cluster.start("annotate", *flags(f"{stored}/photos", run))
    wait_for(lambda: list(storage.list_files(f"{run}/parts")))
    s3_under_fire.kill()
    back = threading.Timer(30, s3_under_fire.start)
    back.start()
    output, _ = job.communicate(timeout=240)
    back.join()
    assert job.returncode == 0, output
    assert "workers died" not in output
    assert output.count("storage: retrying after ") == output.count("(logged once)") > 0
    assert ended_well(output)
    assert anywhere(rows(run)) == anywhere(undisturbed)


def test_a_network_with_lost_reset_truncated_and_stalled_requests(
    cluster: Cluster, stored: str, undisturbed, s3_under_fire: S3Server
) -> None:
    cluster.behave()
    run = f"{stored}/lossy"
    faults = s3_under_fire.faults
    faults.share = 0.3
    before = Counter(faults.done)
    output = cluster.run("annotate", *flags(f"{stored}/photos", run))
    faults.share = 0.0
    assert (faults.done - before).keys() == set(FAULTS)
    kinds = re.findall(r"storage: retrying after (.*) \(logged once\)", output)
    assert len(set(kinds)) == len(kinds)  # empty if the storage client's own retries were enough
    assert ended_well(output)
    assert anywhere(rows(run)) == anywhere(undisturbed)
    assert Run.open(run).quarantined() == {}
    assert not re.search("quarantin|died", output)


def test_a_video_on_a_network_with_disturbed_requests(
    cluster: Cluster, stored: str, s3_under_fire: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too large to be read at once: each shard looks for its range."""
    portrait = decode_image((DEMO / "photos" / "eileen_collins.jpg").read_bytes()).pixels[::2, ::2]
    height, width = portrait.shape[0] // 2 * 2, portrait.shape[1] // 2 * 2
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (60, height, 2 * width, 3), np.uint8)
    for number, pixels in enumerate(frames):
        pixels[:, number : number + width] = portrait[:height, :width]
    path = write_clip(tmp_path / "noise.mkv", list(frames), "libx264", {"g": "10", "qp": "1", "preset": "ultrafast"})
    assert path.stat().st_size > 8 << 20
    storage.write_bytes(f"{stored}/clip/noise.mkv", path.read_bytes())
    cluster.behave()

    def annotated(run: str) -> tuple[list, list, list]:
        cluster.run("annotate", f"--input={stored}/clip/noise.mkv", f"--output={run}", "--input.shard_size=20", *FLAGS)
        return rows(run)

    undisturbed = annotated(f"{stored}/clip-calm")
    assert len(undisturbed[0]) == 60
    assert len(undisturbed[1]) > 30
    assert undisturbed[2]
    monkeypatch.setattr(s3_under_fire.faults, "stall_seconds", 2.0)
    s3_under_fire.faults.share = 0.15
    before = Counter(s3_under_fire.faults.done)
    disturbed = annotated(f"{stored}/clip-loud")
    s3_under_fire.faults.share = 0.0
    assert sum((s3_under_fire.faults.done - before).values()) > 10
    assert disturbed == undisturbed
