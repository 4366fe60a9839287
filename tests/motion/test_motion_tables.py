"""tables/motion and tables/events of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.video_runs import SKELETON, gait, make_run, photo, video, walkers

from jobs.reduce import main as reduce
from pipeline.fleet import write_tracks_and_motion
from pipeline.motion.tables import has_motion, write_motion
from pipeline.people import People
from pipeline.run import Run, reduction
from pipeline.run.tables import plan_folds, table_names
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import write_tracks


def table(run: Run, name: str) -> list[dict]:
    return pq.read_table(run.path("tables", name)).to_pylist()


def test_each_person_has_a_row(tmp_path: Path) -> None:
    """Of photographs, of frames with and without a track, and filled in between."""
    frames = gait(75)
    frames[30:33] = [(row, walkers()) for row, _ in frames[30:33]]
    frames[50] = (frames[50][0], People.concatenate([frames[50][1], walkers(500)]))  # for one frame
    run = make_run(tmp_path, [photo("0.jpg")], frames, [photo("1.jpg")])
    write_tracks(run, TrackingSettings(), reuse=False)
    totals = write_motion(run, TrackingSettings(), reuse=False)
    rows = table(run, "motion")
    assert totals.people == len(rows) == 3 + 3 + 72 + 1 + 3
    assert [row["image_id"] for row in rows[:6]] == ["0.jpg"] * 3 + ["1.jpg"] * 3
    walk = rows[6:]
    assert [row["frame"] for row in walk] == sorted([*range(75), 50])
    assert [row["frame"] for row in walk if row["interpolated"]] == [30, 31, 32]
    (flicker,) = [row for row in walk if row["track_id"] is None]
    assert (flicker["person"], flicker["view"], flicker["left_knee_flexion"]) == (1, None, None)


def test_a_photograph_has_angles_without_an_error(tmp_path: Path) -> None:
    row, people = photo("0.jpg")
    people.keypoint_scores[0, SKELETON.joints.index("left_wrist")] = 0.1
    run = make_run(tmp_path, [(row, people)])
    assert write_tracks(run, TrackingSettings(), reuse=False) is None
    totals = write_motion(run, TrackingSettings(), reuse=False)
    rows = table(run, "motion")
    assert totals.angles == totals.events == 0
    assert "no angle has a standard error below 3 degrees" in totals.line(run)
    shoulder, elbow, wrist = (
        people.keypoints[1, SKELETON.joints.index(f"left_{n}")] for n in ("shoulder", "elbow", "wrist")
    )
    upper, lower = elbow - shoulder, wrist - elbow
    expected = np.degrees(np.arccos(upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower)))
    assert rows[1]["left_elbow_flexion"] == pytest.approx(expected, abs=0.01)
    assert rows[1]["left_elbow_flexion_std"] is None
    assert rows[0]["left_elbow_flexion"] is None, "the wrist is not seen"
    assert rows[0]["track_id"] is rows[0]["com_std"] is None


def test_a_walker_has_angles_with_errors_and_events(tmp_path: Path) -> None:
    run = make_run(tmp_path, gait(100))
    write_tracks(run, TrackingSettings(), reuse=False)
    totals = write_motion(run, TrackingSettings(), reuse=False)
    rows, events = table(run, "motion"), table(run, "events")
    assert {row["view"] for row in rows} == {"sagittal"}
    assert {row["facing"] for row in rows} == {1}
    assert all(row["left_knee_flexion_std"] > 0 for row in rows)
    assert all(row["left_ankle_dorsiflexion"] is None for row in rows), "no feet"
    # The left leg is in front after a quarter of a stride, with the knee before the line from hip to ankle.
    quarter = rows[6]
    hip, knee, ankle = np.array([0, 0]), np.array([25, 40]), np.array([40, 80])
    expected = np.degrees(np.arctan2(*(knee - hip)) - np.arctan2(*(ankle - knee)))
    assert quarter["left_knee_flexion"] == pytest.approx(expected, abs=2)
    assert quarter["left_hip_flexion"] == pytest.approx(np.degrees(np.arctan2(25, 40)), abs=2)
    strikes = [event for event in events if event["event"] == "heel_strike"]
    assert {event["side"] for event in strikes} == {"left", "right"}
    assert [e["seconds"] for e in strikes if e["side"] == "left"] == pytest.approx([0.25, 1.25, 2.25, 3.25], abs=0.03)
    assert all(event["frame"] == round(event["seconds"] * 25) for event in events)
    strides = [event["stride_seconds"] for event in strikes if event["stride_seconds"]]
    assert strides == pytest.approx([1.0] * len(strides), abs=0.03)
    assert len(strides) >= 5
    assert totals.events == len(events)
    assert 0 < totals.good <= totals.angles


def test_the_order_of_tracks_and_shards_changes_nothing(tmp_path: Path) -> None:
    frames = [(row, People.concatenate([people, walkers(900 - 3 * row.frame)])) for row, people in gait(60)]
    whole = make_run(tmp_path / "a", frames)
    parts = make_run(tmp_path / "b", *(frames[i : i + 7] for i in range(0, 60, 7)))
    for run in (whole, parts):
        write_tracks(run, TrackingSettings(), reuse=False)
        write_motion(run, TrackingSettings(), reuse=False)
    for name in ("tracks", "motion", "events"):
        assert table(whole, name) == table(parts, name)


def test_videos_may_lie_in_several_files_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files begin in the middle of a video, and one lies inside of it; rows and their order stay the same."""
    shards = [
        [photo("0.jpg"), *gait(60)[:10]], gait(60)[10:30], gait(60)[30:60], video("b.mp4", range(8), 100),
        [photo("1.jpg"), *video("c.mp4", range(12), 50)],
    ]  # fmt: skip
    whole = make_run(tmp_path / "a", *shards)
    monkeypatch.setattr(reduction, "plan_folds", lambda sizes, counts, megabytes: plan_folds(sizes, counts, 0))
    cut = make_run(tmp_path / "b", *shards)
    assert len(table_names(cut.uri, "images")) == 5
    totals = []
    for run in (whole, cut):
        tracks = write_tracks(run, TrackingSettings(), reuse=False)
        totals.append((tracks, write_motion(run, TrackingSettings(), reuse=False)))
    assert totals[0] == totals[1]
    assert table_names(cut.uri, "tracks") == table_names(cut.uri, "images")
    for name in ("tracks", "events"):
        assert table(whole, name) == table(cut, name)
    rows = [sorted(table(run, "motion"), key=lambda r: (r["image_id"], str(r["person"]))) for run in (whole, cut)]
    assert rows[0] == rows[1]


def test_tracks_in_ray_tasks_are_those_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "plan_folds", lambda sizes, counts, megabytes: plan_folds(sizes, counts, 0))
    run = make_run(tmp_path, gait(60)[:25], gait(60)[25:], video("b.mp4", range(8), 100))
    expected = write_tracks(run, TrackingSettings(), reuse=False), write_motion(run, TrackingSettings(), reuse=False)
    rows = {name: table(run, name) for name in ("tracks", "motion", "events")}
    assert write_tracks_and_motion(run, TrackingSettings(), motion=True, reuse=False) == expected
    assert {name: table(run, name) for name in rows} == rows


def test_reduce_writes_motion_and_keeps_it_up_to_date(tmp_path: Path, capsys) -> None:
    """Of videos by default."""
    run = make_run(tmp_path, gait(60))
    assert write_tracks_and_motion(run, TrackingSettings(), False, reuse=False)[1] is None
    assert not has_motion(run)
    assert reduce([run.uri]) == 0
    assert "events; " in capsys.readouterr().out
    (path,) = (tmp_path / "run" / "tables" / "motion").iterdir()
    written = path.stat().st_mtime_ns
    assert reduce([run.uri, "--motion"]) == 0
    assert path.stat().st_mtime_ns == written, "nothing has changed"
    assert reduce([run.uri, "--tracking.smooth=none"]) == 0
    assert path.stat().st_mtime_ns != written
    assert table(run, "motion")[5]["left_knee_flexion_std"] is None
