"""The tracks of a run against annotated tracks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.video_runs import SKELETON, make_run, video, walkers

from jobs.evaluate import main as evaluate
from pipeline.errors import UserError
from pipeline.evaluation.tracks.evaluate import evaluate_tracks
from pipeline.people import People
from pipeline.run import Run
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import write_tracks


def tracked(folder: Path, images: list) -> Run:
    run = make_run(folder, images)
    write_tracks(run, TrackingSettings(), reuse=False)
    return run


def two_walkers(frames: range = range(20)) -> list:
    return video("clips/walk.mp4", frames, 100, 400)


def write_mot(path: Path, frames: range = range(20), *starts: float) -> Path:
    """Truth of people as `video` makes them, in MOTChallenge's way of counting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{n + 1},{track},{left + 3 * n + 1},51,60,180,1,1,1"
        for n in frames
        for track, left in enumerate(starts or (100, 400), 5)
    ]
    path.write_text("\n".join(lines))
    return path


def posetrack(frames: range, starts: tuple[float, ...] = (100, 400), **image: object) -> dict:
    """Truth of the same people in PoseTrack18's form, with a few of its joints."""
    names = ["nose", "head_bottom", "left_knee", "right_ankle"]
    images, annotations = [], []
    for n in frames:
        images.append({"id": 10_000 + n, "file_name": f"images/walk/{n:06d}.jpg", "is_labeled": True, **image})
        for track, left in enumerate(starts):
            people = walkers(left + 3 * n)
            joints = [
                [*map(float, people.keypoints[0, SKELETON.joints.index(name)]), 1]
                if name in SKELETON.joints
                else [0] * 3
                for name in names
            ]
            annotations.append(
                {
                    "image_id": 10_000 + n, "track_id": track, "category_id": 1, "bbox": [left + 3 * n, 50, 60, 180],
                    "bbox_head": [0, 0, 15, 20], "keypoints": np.ravel(joints).tolist(),
                }
            )  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "keypoints": names}]}


@pytest.mark.parametrize("name", ["walk.txt", "walk/gt/gt.txt"])
def test_perfect_tracks_of_boxes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tracked(tmp_path, two_walkers())
    path = write_mot(tmp_path / "truth" / name)
    assert evaluate([run.uri, "--tracks", str(path if name == "walk.txt" else tmp_path / "truth")]) == 0
    out = capsys.readouterr().out
    assert "tracks of boxes: HOTA 1.000, MOTA 1.000, IDF1 1.000, 0 switches (1 videos)" in out
    stored = json.loads((tmp_path / "run" / "track_metrics.json").read_text())
    assert stored["boxes"]["clips/walk.mp4"]["HOTA"] == stored["boxes"]["all"]["HOTA"] == pytest.approx(1)
    assert stored["poses"] == stored["joints"] == {}


def test_people_who_are_missed_lost_and_invented(tmp_path: Path) -> None:
    images = two_walkers()
    images[10] = (images[10][0], walkers())  # both filled in, which is no detection
    images[11][0].status, images[11] = "unreadable", (images[11][0], walkers())
    images = [(row, People.concatenate([people, walkers(-300 + 3 * row.frame)])) for row, people in images]
    images[11] = (images[11][0], walkers())
    run = tracked(tmp_path, images)
    metrics = evaluate_tracks(run, str(write_mot(tmp_path / "walk.txt")))
    scores = metrics.boxes["all"]
    assert (scores["missed"], scores["false positives"], scores["switches"]) == (4, 19, 0)
    assert scores["MOTA"] == pytest.approx((36 - 19) / 40)


def test_a_run_on_every_second_frame_is_judged_on_these(tmp_path: Path) -> None:
    run = tracked(tmp_path, [image for image in two_walkers() if image[0].frame % 2 == 0])
    scores = evaluate_tracks(run, str(write_mot(tmp_path / "walk.txt"))).boxes["all"]
    assert (scores["MOTA"], scores["missed"]) == (1, 0)


def test_frames_without_annotated_people_have_false_positives(tmp_path: Path) -> None:
    run = tracked(tmp_path, two_walkers())
    scores = evaluate_tracks(run, str(write_mot(tmp_path / "walk.txt", range(15)))).boxes["all"]
    assert scores["false positives"] == 10


def test_other_classes_and_ignored_lines_are_no_people(tmp_path: Path) -> None:
    run = tracked(tmp_path, two_walkers())
    path = write_mot(tmp_path / "walk.txt")
    path.write_text(path.read_text() + "\n1,77,9,9,50,50,0,1,1\n1,78,9,9,50,50,1,3,1")
    assert evaluate_tracks(run, str(path)).boxes["all"]["missed"] == 0


def test_poses_and_joints_of_posetrack(tmp_path: Path) -> None:
    """One knee of one person is wrong in every frame, by more than half of the head's size of 15 pixels."""
    images = two_walkers()
    knee = SKELETON.joints.index("left_knee")
    for _, people in images:
        people.keypoints[0, knee] += [30, 0]
    run = tracked(tmp_path, images)
    path = tmp_path / "walk.json"
    path.write_text(json.dumps(posetrack(range(20))))
    metrics = evaluate_tracks(run, str(path))
    assert metrics.boxes["all"]["MOTA"] == 1
    assert metrics.poses["all"]["MOTA"] == 1
    assert metrics.poses["all"]["HOTA"] < 1
    assert metrics.joints == {
        "mean": pytest.approx((1 + 0 + 1) / 3), "nose": 1, "left_knee": 0, "right_ankle": 1
    }  # fmt: skip
    assert "tracks of joints: MOTA 0.667" in "\n".join(metrics.lines())


def test_only_labelled_frames_and_regions_count(tmp_path: Path) -> None:
    images = [(row, People.concatenate([people, walkers(900)])) for row, people in two_walkers()]
    run = tracked(tmp_path, images)
    truth = posetrack(range(5, 10))
    truth["images"] += posetrack(range(10, 20), is_labeled=False)["images"]
    path = tmp_path / "walk.json"
    path.write_text(json.dumps(truth))
    assert evaluate_tracks(run, str(path)).boxes["all"]["false positives"] == 5
    for image in truth["images"]:
        image |= {"ignore_regions_x": [[880, 1000, 1000, 880]], "ignore_regions_y": [[0, 0, 480, 480]]}
    path.write_text(json.dumps(truth))
    assert evaluate_tracks(run, str(path)).boxes["all"]["false positives"] == 0


def test_a_video_of_which_every_frame_failed_is_missed(tmp_path: Path) -> None:
    lost = video("clips/lost.mp4", range(20))
    for row, _ in lost:
        row.status = "unreadable"
    run = tracked(tmp_path, [*two_walkers(), *lost])
    write_mot(tmp_path / "truth" / "walk.txt")
    write_mot(tmp_path / "truth" / "lost.txt")
    metrics = evaluate_tracks(run, str(tmp_path / "truth"))
    assert metrics.unmatched == []
    assert metrics.boxes["all"]["missed"] == 40


@pytest.mark.parametrize("first", [0, 1, 37])
def test_sequences_of_motchallenge(first: int, tmp_path: Path) -> None:
    """Their images lie in img1 and usually count from 1; det.txt lies beside gt.txt."""
    images = [
        (row, people) for row, people in video("MOT17-02.x/img1", range(first, first + 20), 100 - 3 * first, step=3)
    ]
    for row, _ in images:
        row.pts = None
    run = tracked(tmp_path, images)
    write_mot(tmp_path / "truth" / "MOT17-02.x" / "gt" / "gt.txt", range(20), 100)
    (tmp_path / "truth" / "MOT17-02.x" / "det").mkdir()
    (tmp_path / "truth" / "MOT17-02.x" / "det" / "det.txt").write_text("1,-1,2,3,4,5,1\n1,-1,2,3,4,5,1")
    assert evaluate_tracks(run, str(tmp_path / "truth")).boxes["all"]["MOTA"] == 1


def test_a_run_without_tracks_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, two_walkers())
    assert evaluate([run.uri, "--tracks", str(write_mot(tmp_path / "walk.txt"))]) == 1
    assert "has no tracks" in capsys.readouterr().err


def test_annotations_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tracked(tmp_path, two_walkers())
    folder = tmp_path / "truth"
    folder.mkdir()
    with pytest.raises(UserError, match="has no annotated tracks: expected"):
        evaluate_tracks(run, str(folder))
    write_mot(folder / "other.txt")
    with pytest.raises(UserError, match=r"has tracks of other, and .* has no video of such a name"):
        evaluate_tracks(run, str(folder))
    write_mot(folder / "walk.txt")
    assert "1 annotated videos are not in the run, and left out: other" in "\n".join(
        evaluate_tracks(run, str(folder)).lines()
    )
    for text, message in (
        ("1,2,x,4,5,6", "is no file of MOTChallenge"),
        ("1,2,3,4", "has 4 columns; expected frame, track"),
        ("1,2,3,4,5,6,1\n1,2,3,4,5,6,1", "frame 1 has a track twice"),
    ):
        (folder / "walk.txt").write_text(text)
        assert evaluate([run.uri, "--tracks", str(folder / "walk.txt")]) == 1
        assert message in capsys.readouterr().err
    (folder / "walk.json").write_text("[]")
    assert evaluate([run.uri, "--tracks", str(folder / "walk.json")]) == 1
    assert "walk.json is not a file of PoseTrack18" in capsys.readouterr().err
    assert evaluate([run.uri, "--tracks", str(folder), "--report"]) == 2
    assert "--tracks cannot be combined with --report" in capsys.readouterr().err
