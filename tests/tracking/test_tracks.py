"""tables/tracks of a run: one row for each person in a frame of a video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.reduce import main as reduce
from pipeline import storage
from pipeline.errors import UserError
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.reduction import reduce_run
from pipeline.run.tables import ImageRow, encode_part, skeleton_metadata
from pipeline.settings.tree import Settings, TrackingSettings
from pipeline.skeletons import SKELETONS
from pipeline.sources import PlannedShard, write_manifest
from pipeline.tracking.tables import TrackTotals, write_tracks

SKELETON = SKELETONS["coco17"]
POSE = np.random.default_rng(0).uniform(0.1, 0.9, (17, 2))


def walkers(*lefts: float) -> People:
    boxes = np.array([[left, 50, left + 60, 230] for left in lefts]).reshape(-1, 4)
    keypoints = boxes[:, None, :2] + POSE * (60, 180)
    count = len(boxes)
    return People(boxes, np.ones(count), keypoints.reshape(-1, 17, 2), np.ones((count, 17)), np.ones(count))


def video(name: str, frames: range, *starts: float, step: float = 3) -> list[tuple[ImageRow, People]]:
    return [
        (
            ImageRow(f"{name}/{n:09d}", "", None, None, 640, 480, 1, video=name, frame=n, pts=n, seconds=n / 25),
            walkers(*(start + step * n for start in starts)),
        )
        for n in frames
    ]


def photo(name: str) -> tuple[ImageRow, People]:
    return ImageRow(name, "", None, "ab", 640, 480, 1), walkers(10, 200, 400)


def make_run(folder: Path, *shards: list[tuple[ImageRow, People]]) -> Run:
    """A reduced run with these images."""
    (folder / "in").mkdir(parents=True)
    settings = Settings.model_validate({"input": {"uri": str(folder / "in")}, "output": {"uri": str(folder / "run")}})
    run = Run.create(settings)
    planned = [
        PlannedShard(kind="files", keys=(str(i),), uris=("",), sizes=(0,), etags=("",), num_images=len(images))
        for i, images in enumerate(shards)
    ]
    storage.write_bytes(run.path("run.json"), json.dumps(described(run)).encode())
    write_manifest(run.manifest_uri, planned, run.fingerprint)
    for i, images in enumerate(shards):
        shard = planned[i].at(i).id
        metadata = {"shard": shard, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
        rows, people = [row for row, _ in images], [found for _, found in images]
        storage.write_bytes(run.part_uri(shard), encode_part(rows, people, None, People.empty(17), metadata))
    reduce_run(run)
    return run


def described(run: Run) -> dict:
    return {"fingerprint": run.fingerprint, "settings": run.settings.model_dump(mode="json"), "results": {}}


def rows(run: Run) -> list[dict]:
    return pq.read_table(run.path("tables", "tracks")).to_pylist()


def test_each_person_in_a_frame_has_a_row(tmp_path: Path) -> None:
    first = video("a.mp4", range(12), 100, 400)
    first[5][0].status, first[5] = "unreadable", (first[5][0], walkers())
    second = video("a.mp4", range(12, 20), 100, 400)
    lonely = video("b.mp4", range(1), 100)
    run = make_run(tmp_path, [photo("0.jpg"), *first], [*second, photo("b.jpg"), *lonely])
    totals = write_tracks(run, TrackingSettings(), reuse=False)
    assert totals == TrackTotals(videos=2, tracks=2, people=2 * 19 + 1, tracked=2 * 19)
    found = rows(run)
    assert [row["track_id"] for row in found] == [1, 2] * 19 + [None]
    assert found[0] == {
        "image_id": "a.mp4/000000000", "person": 0, "video": "a.mp4", "frame": 0, "seconds": 0.0, "track_id": 1,
    }  # fmt: skip
    assert [row["frame"] for row in found if row["video"] == "a.mp4"][::2] == [n for n in range(20) if n != 5]


def test_frames_of_sequences_are_tracked_by_number(tmp_path: Path) -> None:
    images = video("walk", range(8, 13), 100)
    names = sorted(images, key=lambda image: str(image[0].frame))  # 10, 11, 12, 8, 9
    run = make_run(tmp_path, names)
    write_tracks(run, TrackingSettings(confirm=0.1), reuse=False)
    assert [(row["frame"], row["track_id"]) for row in rows(run)] == [(n, 1) for n in range(8, 13)]


def test_runs_without_videos_have_no_tracks(tmp_path: Path) -> None:
    run = make_run(tmp_path, [photo("0.jpg")])
    assert write_tracks(run, TrackingSettings(), reuse=False) is None
    assert not (tmp_path / "run" / "tables" / "tracks").exists()


def test_a_video_in_two_pieces_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, [*video("a", range(3), 100), *video("b", range(3), 100), *video("a", range(3, 6), 100)])
    with pytest.raises(UserError, match=r"the frames of a are not together in .*; sort the list of the input"):
        write_tracks(run, TrackingSettings(), reuse=False)


def test_other_settings_make_other_tracks_without_networks(tmp_path: Path, capsys) -> None:
    gap = [*video("a.mp4", range(20), 100), *video("a.mp4", range(60, 80), 100)]
    run = make_run(tmp_path, gap)
    assert reduce([run.uri]) == 0
    assert "(2 in 1 videos; 40 of 40 people in frames)" in capsys.readouterr().out
    path = next((tmp_path / "run" / "tables" / "tracks").iterdir())
    written = path.stat().st_mtime_ns
    write_tracks(run, TrackingSettings(), reuse=True)
    assert path.stat().st_mtime_ns == written
    assert reduce([run.uri, "--tracking.memory=5"]) == 0
    assert "(1 in 1 videos; 40 of 40 people in frames)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        reduce([run.uri, "--tracking.memory=-1"])
    assert "--tracking.memory -1: Input should be greater than 0" in capsys.readouterr().err
