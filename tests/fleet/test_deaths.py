"""Exactly once: after any death the tables equal those of an undisturbed run, row for row."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
from support.cluster import FLAGS, NUM_IMAGES, Cluster, end, ended_well, flags, parts, rows, wait_for
from support.images import encode, gradient
from support.paths import DEMO
from support.videos import CLIPS, write_clip

from pipeline import storage
from pipeline.images import decode_image
from pipeline.run import Run
from pipeline.settings.flags import parse_settings


def slow(*values: object):  # type: ignore[no-untyped-def]
    """A case that only .ci/run tests, as the default run has a similar one."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("stage", [slow("reading"), slow("networks"), slow("writing"), "committing"])
def test_a_worker_is_killed(cluster: Cluster, photos: Path, undisturbed, tmp_path: Path, stage: str) -> None:
    paused = tmp_path / "paused"
    cluster.behave(pause=stage, paused=str(paused))
    job = cluster.start("annotate", *flags(photos, tmp_path / "run"))
    wait_for(lambda: paused.exists() and paused.read_text())
    os.kill(int(paused.read_text()), signal.SIGKILL)
    output, _ = job.communicate(timeout=200)
    assert job.returncode == 0, output
    assert "1 workers died" in output
    assert ended_well(output)
    assert rows(str(tmp_path / "run")) == undisturbed


def test_a_worker_is_killed_while_it_loads(cluster: Cluster, photos: Path, undisturbed, tmp_path: Path) -> None:
    # Whether Ray replaces the process or the job asks for another worker depends on the moment; the tables do not.
    cluster.behave()
    job = cluster.start("annotate", *flags(photos, tmp_path / "run"))
    wait_for(cluster.workers)
    cluster.workers()[0].send_signal(signal.SIGKILL)
    output, _ = job.communicate(timeout=200)
    assert job.returncode == 0, output
    assert ended_well(output)
    assert rows(str(tmp_path / "run")) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(("failures", "code"), [(5, 0), (6, 1)])
def test_failed_workers_are_started_again(
    cluster: Cluster, photos: Path, undisturbed, tmp_path: Path, failures: int, code: int
) -> None:
    """A broken GPU is given to one worker after another while a working one still loads; the limit is three each."""
    broken = [tmp_path / str(number) for number in range(failures)]
    for path in broken:
        path.touch()
    cluster.behave(broken=list(map(str, broken)))
    output = cluster.run("annotate", *flags(photos, tmp_path / "run"), "--fleet.workers=2", code=code)
    assert not any(path.exists() for path in broken)
    assert output.count("a worker could not start, starting another: this GPU is broken") == 1
    if code:
        assert "a worker could not start: this GPU is broken" in output
    else:
        assert ended_well(output)
        assert rows(str(tmp_path / "run")) == undisturbed


@pytest.mark.slow
def test_workers_are_used_as_they_arrive(cluster: Cluster, photos: Path, undisturbed, tmp_path: Path) -> None:
    """Four workers are wanted and two fit: these start, and a third works as soon as another node has joined."""
    cluster.behave(sleep=5.0)  # the third joins while the two hold two shards each, and two are left
    job = cluster.start("annotate", *flags(photos, tmp_path / "run"), "--fleet.workers=4")
    wait_for(lambda: len(cluster.workers(doing="annotate")) == 2)
    node = cluster.add_node(tmp_path)
    try:
        wait_for(lambda: cluster.workers(node, doing="annotate"))
        cluster.behave()
        output, _ = job.communicate(timeout=200)
    finally:
        end(node)
    assert job.returncode == 0, output
    assert ended_well(output)
    assert rows(str(tmp_path / "run")) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGTERM), slow(signal.SIGINT)])
def test_the_driver_is_stopped_and_run_again(
    cluster: Cluster, photos: Path, undisturbed, tmp_path: Path, number
) -> None:
    run = tmp_path / "run"
    cluster.behave(sleep=0.3)
    job = cluster.start("annotate", *flags(photos, run), "--fleet.grace_seconds=1")
    wait_for(lambda: parts(run))
    job.send_signal(number)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert "Rerun the same command to resume" in output
    wait_for(lambda: not cluster.workers())
    before = parts(run)
    assert 0 < len(before) < 6
    assert "is incomplete" in cluster.run("reduce", str(run), code=1)

    cluster.behave()
    output = cluster.run("annotate", *flags(photos, run))
    assert "are already done" in output
    assert ended_well(output)
    after = parts(run)
    assert {name: after[name] for name in before} == before, "finished parts are not written again"
    assert rows(str(run)) == undisturbed

    tables = {p: p.stat().st_mtime_ns for p in run.rglob("tables/*/*.parquet")}
    cluster.run("annotate", *flags(photos, run))
    assert {p: p.stat().st_mtime_ns for p in run.rglob("tables/*/*.parquet")} == tables, (
        "rerunning a finished run is a no-op"
    )


@pytest.mark.parametrize("act", ["kill", slow("crash"), slow("hang"), slow("devour")])
def test_an_image_that_ends_its_process_is_one_poison_row(
    cluster: Cluster, photos: Path, undisturbed, tmp_path: Path, act: str
) -> None:
    deadly = photos / "013.jpg"
    cluster.behave(**{act: [hashlib.sha256(deadly.read_bytes()).hexdigest()]})
    limits = ("--fleet.image_seconds=3", "--fleet.worker_gigabytes=2.5")
    output = cluster.run("annotate", *flags(photos, tmp_path / "run"), *limits)
    assert f"{NUM_IMAGES} images ({NUM_IMAGES - 1} ok, 1 poison)" in output
    assert "has ended its worker twice: marked as poison" in output
    images, people, _ = rows(str(tmp_path / "run"))
    poison = [row for row in images if row["status"] == "poison"]
    assert [row["image_id"] for row in poison] == ["013.jpg"]
    assert "died twice while decoding it" in poison[0]["error"]
    assert [r for r in images if r["image_id"] != "013.jpg"] == [
        r for r in undisturbed[0] if r["image_id"] != "013.jpg"
    ]
    assert people == [r for r in undisturbed[1] if r["image_id"] != "013.jpg"]


@pytest.mark.slow
def test_a_leak_costs_workers_and_no_image(cluster: Cluster, photos: Path, undisturbed, tmp_path: Path) -> None:
    # The two shards that a worker holds leak less than a fifth of its limit: it is replaced before it could die.
    cluster.behave(leak=12 << 20)
    limits = ("--fleet.worker_gigabytes=0.8", "--fleet.workers=1")
    output = cluster.run("annotate", *flags(photos, tmp_path / "run"), *limits)
    assert ended_well(output)
    assert "reached its memory limit and was replaced" in output
    assert "workers died" not in output
    assert rows(str(tmp_path / "run")) == undisturbed


@pytest.mark.slow
def test_a_shard_that_fills_its_worker_alone_blames_no_image(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    cluster.behave(leak=120 << 20)
    run = tmp_path / "run"
    arguments = [*flags(photos, run), "--input.shard_size=36", "--fleet.worker_gigabytes=2.2", "--fleet.max_attempts=2"]
    output = cluster.run("annotate", *arguments, code=1)
    assert "quarantined: failed 2 times: its worker process died" in output
    assert "poison" not in output
    cluster.behave()
    assert ended_well(cluster.run("annotate", *arguments))


def test_a_memory_limit_below_the_networks_is_reported(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    cluster.behave()
    output = cluster.run("annotate", *flags(photos, tmp_path / "run"), "--fleet.worker_gigabytes=0.2", code=1)
    assert "the networks alone take" in output


def test_a_shard_that_cannot_be_finished_is_quarantined_and_the_others_continue(
    cluster: Cluster, photos: Path, s3_server: str
) -> None:
    folder = f"{s3_server}/quarantine"
    cluster.behave()
    whole, short = io.BytesIO(), io.BytesIO()
    for sink, count in ((whole, 4), (short, 3)):
        with tarfile.open(fileobj=sink, mode="w") as archive:
            for i in range(count):
                archive.add(photos / f"{i:03d}.jpg", f"{i:03d}.jpg")
    collection, run = storage.join(folder, "in"), storage.join(folder, "run")
    for name in ("a.tar", "b.tar", "c.tar"):
        storage.write_bytes(storage.join(collection, name), whole.getvalue())
    arguments = [f"--input={collection}", f"--output={run}", *FLAGS, "--fleet.max_attempts=2"]
    settings = parse_settings(arguments, "")
    planned = Run.create(settings)
    planned.plan()
    storage.write_bytes(storage.join(collection, "b.tar"), short.getvalue())

    output = cluster.run("annotate", *arguments, code=1)
    assert "quarantined: failed 2 times: ChangedObject" in output
    assert "b.tar has changed" in output
    assert output.count("(logged once)") == 1
    assert "1 of 3 shards have no part, 4 images" in output
    assert len(planned.parts()) == 2
    assert list(planned.quarantined()) == [list(planned.manifest().counts)[1]]

    assert "is incomplete" in cluster.run("reduce", run, code=1)
    assert "INCOMPLETE: 1 shards with 4 images are missing" in cluster.run("reduce", run, "--allow-partial")
    assert len(rows(run)[0]) == 8

    storage.write_bytes(storage.join(collection, "b.tar"), whole.getvalue())
    assert "12 images (12 ok)" in cluster.run("annotate", *arguments)
    assert len(rows(run)[0]) == 12
    assert planned.quarantined() == {}


def test_a_network_that_cannot_be_loaded_ends_the_job_at_once(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    output = cluster.run("annotate", *flags(photos, tmp_path / "run"), "--pose.name=fastpose_r50", code=2)
    assert "with 17 joints, not --pose.name fastpose_r50" in output


def test_other_settings_are_refused_before_anything_runs(cluster: Cluster, photos: Path, undisturbed_run: Path) -> None:
    output = cluster.run("annotate", *flags(photos, undisturbed_run), "--suppression.gamma=20", code=2)
    assert "suppression.gamma was None, now 20.0" in output


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of 60 frames, six groups of pictures, and a photograph."""
    folder = tmp_path_factory.mktemp("clip")
    portrait = decode_image((DEMO / "photos" / "eileen_collins.jpg").read_bytes()).pixels[::2, ::2]
    frames = [np.ascontiguousarray(np.roll(portrait, i, axis=1)) for i in range(60)]
    write_clip(folder / "clip.mp4", frames, *CLIPS["h264.mp4"])
    (folder / "photo.jpg").write_bytes(encode(gradient(60, 40)))
    return folder


@pytest.fixture(scope="module")
def undisturbed_clip(cluster: Cluster, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, list, list]:
    """The rows of a run without failures over that folder: also those of tracks and motion."""
    output = tmp_path_factory.mktemp("clip_run") / "run"
    cluster.behave()
    cluster.run("annotate", *_clip_flags(clip, output))
    images, people, others = rows(str(output))
    assert [row["frame"] for row in images] == [*range(60), None]
    assert len(people) >= 30
    assert len(others) >= 60, "tracks and motion"
    return images, people, others


def _clip_flags(clip: Path, output: Path) -> list[str]:
    """Four shards: three of the video and the photograph."""
    return [f"--input={clip}", f"--output={output}", "--input.shard_size=20", *FLAGS]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_process_is_killed_in_the_middle_of_a_video(
    cluster: Cluster, clip: Path, undisturbed_clip, tmp_path: Path, victim: str
) -> None:
    run, paused = tmp_path / "run", tmp_path / "paused"
    cluster.behave(pause="networks" if victim == "worker" else "", paused=str(paused), sleep=0.5)
    job = cluster.start("annotate", *_clip_flags(clip, run))
    wait_for(lambda: paused.exists() and paused.read_text() if victim == "worker" else parts(run))
    os.kill(int(paused.read_text()) if victim == "worker" else job.pid, signal.SIGKILL)
    job.communicate(timeout=200)
    cluster.behave()
    if victim == "driver":
        wait_for(lambda: not cluster.workers())
        assert 0 < len(parts(run)) < 4
        cluster.run("annotate", *_clip_flags(clip, run))
    assert rows(str(run)) == undisturbed_clip


@pytest.mark.slow
def test_the_driver_is_killed_while_it_tracks_people(
    cluster: Cluster, clip: Path, undisturbed_clip, tmp_path: Path
) -> None:
    run, paused = tmp_path / "run", tmp_path / "paused"
    cluster.behave(pause="tracking", paused=str(paused))
    job = cluster.start("annotate", *_clip_flags(clip, run), hooked=True)
    wait_for(lambda: paused.exists() and paused.read_text() == str(job.pid))
    assert len(parts(run)) == 4
    assert not (run / "tables" / "motion").exists()
    job.kill()
    job.communicate(timeout=200)
    cluster.behave()
    cluster.run("annotate", *_clip_flags(clip, run))
    assert rows(str(run)) == undisturbed_clip


@pytest.mark.slow
@pytest.mark.parametrize("act", ["kill", "hang"])
def test_a_group_of_pictures_that_ends_its_process(
    cluster: Cluster, clip: Path, undisturbed_clip, tmp_path: Path, act: str
) -> None:
    """Its first frame is blamed, its other frames are not decoded, and all others are as without it."""
    with av.open(str(clip / "clip.mp4")) as container:
        keys = [bytes(packet) for packet in container.demux(video=0) if packet.is_keyframe]
    cluster.behave(**{act: [hashlib.sha256(keys[3]).hexdigest()]})
    output = cluster.run("annotate", *_clip_flags(clip, tmp_path / "run"), "--fleet.image_seconds=3")
    assert "61 images (51 ok, 9 unreadable, 1 poison)" in output
    images, people, _ = rows(str(tmp_path / "run"))
    assert [row["frame"] for row in images if row["status"] == "poison"] == [30]
    lost = [row for row in images if row["status"] == "unreadable"]
    assert [row["frame"] for row in lost] == list(range(31, 40))
    (error,) = {row["error"] for row in lost}
    assert error.startswith("not decoded: frame 30, which is decoded together with it, ended its process")
    left = {row["image_id"] for row in images if row["status"] == "ok"}
    assert [row for row in images if row["status"] == "ok"] == [r for r in undisturbed_clip[0] if r["image_id"] in left]
    assert people == [row for row in undisturbed_clip[1] if row["image_id"] in left]
