"""tables/tracks of a run: one row for each person in a frame of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.video_runs import make_run, photo, video, walkers

from jobs.reduce import main as reduce
from pipeline.errors import UserError
from pipeline.run import Run, reduction
from pipeline.run.reduction import reduce_run
from pipeline.run.tables import plan_folds, table_names
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import TrackTotals, write_tracks
from pipeline.tracking.videos import tracked_videos


def rows(run: Run) -> list[dict]:
    return pq.read_table(run.path("tables", "tracks")).to_pylist()


def test_each_person_in_a_frame_has_a_row(tmp_path: Path) -> None:
    first = video("a.mp4", range(12), 100, 400)
    first[5][0].status, first[5] = "unreadable", (first[5][0], walkers())
    second = video("a.mp4", range(12, 20), 100, 400)
    lonely = video("b.mp4", range(1), 100)
    run = make_run(tmp_path, [photo("0.jpg"), *first], [*second, photo("b.jpg"), *lonely])
    totals = write_tracks(run, TrackingSettings(), reuse=False)
    assert totals == TrackTotals(videos=2, tracks=2, people=2 * 19 + 1, tracked=2 * 19, weak=0, interpolated=0)
    found = rows(run)
    assert [row["track_id"] for row in found] == [1, 2] * 19 + [None]
    expected = {
        "image_id": "a.mp4/000000000", "person": 0, "video": "a.mp4", "frame": 0, "seconds": 0.0, "track_id": 1,
        "interpolated": False, "box": [100, 50, 160, 230], "swapped_arms": False, "swapped_legs": False,
    }  # fmt: skip
    assert {name: found[0][name] for name in expected} == expected
    assert (found[-1]["keypoints_smooth"], found[-1]["keypoint_std"]) == (None, None), "nothing to smooth it with"
    assert [row["frame"] for row in found if row["video"] == "a.mp4"][::2] == [n for n in range(20) if n != 5]


def test_people_of_a_frame_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Also if the first has a higher track than the next: tracks are numbered from left to right."""
    run = make_run(tmp_path, video("a.mp4", range(5), 400, 100))
    write_tracks(run, TrackingSettings(confirm=0.1), reuse=False)
    assert [(row["person"], row["track_id"]) for row in rows(run)] == [(0, 2), (1, 1)] * 5


def test_frames_without_a_person_are_filled_with_rows_of_their_own(tmp_path: Path) -> None:
    """Marked, without a number in tables/people, and not counted as people; tables/people stays as it is."""
    images = video("a.mp4", range(20), 100)
    images[7:9] = [(row, walkers()) for row, _ in images[7:9]]
    run = make_run(tmp_path, images)
    totals = write_tracks(run, TrackingSettings(), reuse=False)
    assert totals == TrackTotals(videos=1, tracks=1, people=18, tracked=18, weak=0, interpolated=2)
    found = rows(run)
    assert [row["frame"] for row in found] == list(range(20))
    assert [row["frame"] for row in found if row["interpolated"]] == [7, 8]
    assert [row["person"] for row in found[6:10]] == [0, None, None, 0]
    truth = walkers(100 + 3 * 8)
    np.testing.assert_allclose(found[8]["box"], truth.boxes[0], atol=0.01)
    np.testing.assert_allclose(found[8]["keypoints_smooth"], truth.keypoints[0], atol=0.5)
    assert (np.array(found[8]["keypoint_std"]) > np.array(found[12]["keypoint_std"])).all()
    assert pq.read_table(run.path("tables", "people")).num_rows == 18


def test_weak_people_count_if_a_track_takes_them(tmp_path: Path) -> None:
    """They keep their numbers of tables/weak, after those of tables/people; others have no row."""
    images = video("a.mp4", range(20), 400, 100)
    images[7:9] = [(row, walkers(400 + 3 * n)) for n, (row, _) in enumerate(images[7:9], 7)]
    weak = {"a.mp4/000000007": walkers(700, 100 + 3 * 7), "a.mp4/000000012": walkers(700)}
    run = make_run(tmp_path, [photo("0.jpg"), *images], weak=weak)
    totals = write_tracks(run, TrackingSettings(), reuse=False)
    assert totals == TrackTotals(videos=1, tracks=2, people=38, tracked=38, weak=1, interpolated=1)
    found = rows(run)
    assert [(row["frame"], row["person"], row["track_id"]) for row in found if row["weak"]] == [(7, 2, 1)]
    np.testing.assert_allclose(next(row["box"] for row in found if row["weak"]), walkers(121).boxes[0])
    assert {(row["frame"], row["track_id"]) for row in found if row["interpolated"]} == {(8, 1)}
    table = pq.read_table(run.path("tables", "weak")).to_pylist()
    assert [(row["image_id"][-3:], row["person"]) for row in table] == [("007", 1), ("007", 2), ("012", 2)]
    images_table = pq.read_table(run.path("tables", "images")).to_pydict()
    assert images_table["num_weak"][:9] == [0] * 8 + [2]
    assert set(images_table["num_people"]) == {1, 2, 3}
    (frame,) = [f for v in tracked_videos(run) for f in v.frames if f.image["frame"] == 7]
    assert {p.track: frame.people.boxes[p.person][0] for p in frame.tracked if p.person is not None} == {1: 121, 2: 421}


def test_frames_of_sequences_are_tracked_by_number(tmp_path: Path) -> None:
    images = video("walk", range(8, 13), 100)
    names = sorted(images, key=lambda image: str(image[0].frame))  # 10, 11, 12, 8, 9
    run = make_run(tmp_path, names)
    write_tracks(run, TrackingSettings(confirm=0.1), reuse=False)
    assert [(row["frame"], row["track_id"]) for row in rows(run)] == [(n, 1) for n in range(8, 13)]


def test_tables_of_an_earlier_version_are_tracked(tmp_path: Path) -> None:
    """Without the column of thumbnails."""
    run = make_run(tmp_path, video("a.mp4", range(20), 100))
    (path,) = (tmp_path / "run" / "tables" / "images").iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["thumbnail"]), path)
    totals = write_tracks(run, TrackingSettings(), reuse=False)
    assert totals is not None
    assert totals.tracked == 20


def failed(images: list) -> list:
    for row, _ in images:
        row.status = "unreadable"
    return [(row, walkers()) for row, _ in images]


def test_a_video_that_begins_with_failed_frames_at_the_end_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "plan_folds", lambda sizes, counts, megabytes: plan_folds(sizes, counts, 0))
    images = video("b.mp4", range(60), 100)
    run = make_run(tmp_path, [*video("a.mp4", range(30), 100), *failed(images[:10])], images[10:])
    totals = write_tracks(run, TrackingSettings(), reuse=False)
    assert totals is not None
    assert (totals.videos, totals.people, totals.tracked) == (2, 80, 80)


def test_tracks_go_when_the_tables_are_made_again(tmp_path: Path) -> None:
    """A driver that dies between the tables and the tracks leaves none of an earlier reduction."""
    run = make_run(tmp_path, video("a.mp4", range(20), 100))
    write_tracks(run, TrackingSettings(), reuse=False)
    reduce_run(run)
    assert table_names(run.uri, "tracks") == []


def test_the_error_of_a_video_in_pieces_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, [*video("a", range(3), 100), *video("b", range(3), 100), *video("a", range(3, 6), 100)])
    for _ in range(2):
        with pytest.raises(UserError, match="not together"):
            write_tracks(run, TrackingSettings(), reuse=True)


def test_other_images_may_lie_between_the_frames_of_a_sequence(tmp_path: Path) -> None:
    images = video("walk", range(40), 100)
    run = make_run(tmp_path, [*images[:20], photo("walk/cover.jpg"), *images[20:]])
    write_tracks(run, TrackingSettings(), reuse=False)
    (found,) = tracked_videos(run)
    assert [len(frame.tracked) for frame in found.frames] == [1] * 40


def test_reduce_keeps_the_settings_of_the_tracks(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path, [*video("a.mp4", range(20), 100), *video("a.mp4", range(60, 80), 100)])
    assert reduce([run.uri, "--tracking.memory=5"]) == 0
    assert reduce([run.uri, "--export=mot"]) == 0
    assert capsys.readouterr().out.count("(1 in 1 video;") == 2


def test_tracks_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, video("a.mp4", range(20), 100))
    with pytest.raises(UserError, match="has no tracks"):
        list(tracked_videos(run))
    write_tracks(run, TrackingSettings(), reuse=False)
    (path,) = (tmp_path / "run" / "tables" / "tracks").iterdir()
    pq.write_table(pq.read_table(path).replace_schema_metadata({"version": "1"}), path)
    with pytest.raises(UserError, match=r"are of an earlier version; run jobs/reduce\.py"):
        list(tracked_videos(run))


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
    assert "(2 in 1 video; 40 of 40 detections have one, and 0 weak ones; 0 filled in)" in capsys.readouterr().out
    path = next((tmp_path / "run" / "tables" / "tracks").iterdir())
    written = path.stat().st_mtime_ns
    write_tracks(run, TrackingSettings(), reuse=True)
    assert path.stat().st_mtime_ns == written
    assert reduce([run.uri, "--tracking.memory=5"]) == 0
    assert "(1 in 1 video; 40 of 40 detections have one, and 0 weak ones; 0 filled in)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        reduce([run.uri, "--tracking.memory=-1"])
    assert "--tracking.memory -1: Input should be greater than 0" in capsys.readouterr().err
