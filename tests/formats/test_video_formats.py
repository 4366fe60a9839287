"""Formats of tracks: what each file has for two people, one of whom is not seen for a while."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO
from support.video_runs import SKELETON, gait, make_clip_run, make_run, photo, video, walkers
from support.videos import write_clip

from jobs.reduce import main as reduce
from pipeline import storage
from pipeline.errors import UserError
from pipeline.formats import export
from pipeline.run import Run
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import write_tracks


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A photograph, and a video of 30 frames: the second person is missing in 5 and 6, and from 15 to 23."""
    images = video("in/a.mp4", range(30), 100, 400)
    for n in (5, 6, *range(15, 24)):
        images[n] = (images[n][0], walkers(100 + 3 * n))
    images[29] = (images[29][0], walkers(100 + 3 * 29, 400 + 3 * 29, 20))  # a third, for one frame
    images[8][0].status, images[8] = "unreadable", (images[8][0], walkers())
    made = make_run(tmp_path, [photo("0.jpg")], images)
    write_tracks(made, TrackingSettings(), reuse=False)
    return made


def members(uri: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(storage.read_bytes(uri))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


FOUND = {1: [n for n in range(30) if n != 8], 2: [n for n in range(30) if n not in (5, 6, 8, *range(15, 24))]}


def test_mot(run: Run) -> None:
    (text,) = members(export(run, "mot")).values()
    rows = np.loadtxt(io.BytesIO(text), delimiter=",")
    for track, frames in FOUND.items():
        of_track = rows[rows[:, 1] == track]
        np.testing.assert_array_equal(of_track[:, 0], np.array(frames) + 1)
        left = (101 if track == 1 else 401) + 3 * np.array(frames)
        np.testing.assert_allclose(
            of_track[:, 2:6], np.column_stack([left, *np.full((3, len(left)), [[51], [60], [180]])])
        )
    assert set(rows[:, 1]) == {1, 2}, "the third person has no track"
    np.testing.assert_array_equal(rows[:, 6:], np.tile([1, -1, -1, -1], (len(rows), 1)))


def test_posetrack(run: Run, tmp_path: Path) -> None:
    (text,) = members(export(run, "posetrack")).values()
    (tmp_path / "a.json").write_bytes(text)
    coco = COCO(str(tmp_path / "a.json"))
    assert len(coco.imgs) == 29
    content = json.loads(text)
    assert {image["nframes"] for image in content["images"]} == {30}, "one of them failed"
    assert [image["file_name"] for image in content["images"]][:2] == ["in/a.mp4/000000000", "in/a.mp4/000000001"]
    names = content["categories"][0]["keypoints"]
    assert names[:5] == ["nose", "head_bottom", "head_top", "left_ear", "right_ear"]
    for track, frames in FOUND.items():
        found = [a for a in content["annotations"] if a["track_id"] == track - 1]
        assert [a["image_id"] % 1_000_000 for a in found] == frames
        people = walkers((100 if track == 1 else 400) + 3 * frames[3])
        joints = np.reshape(found[3]["keypoints"], (17, 3))
        for name in ("nose", "left_ear", "right_ankle"):
            expected = people.keypoints[0, SKELETON.joints.index(name)]
            np.testing.assert_allclose(joints[names.index(name)], [*expected, 1], atol=1e-3)
        shoulders = [SKELETON.joints.index(f"{side}_shoulder") for side in ("left", "right")]
        np.testing.assert_allclose(joints[1, :2], people.keypoints[0, shoulders].mean(axis=0), atol=1e-3)
        assert joints[2].tolist() == [0, 0, 0], "COCO has no top of the head"
        assert found[3]["scores"] == [1, 1, 0, *[1] * 14]


def test_cvat_for_video(run: Run) -> None:
    (text,) = members(export(run, "cvat_video")).values()
    root = ElementTree.fromstring(text)
    assert root.findtext("meta/task/size") == "30"
    tracks = root.findall("track")
    assert [track.get("id") for track in tracks] == ["0", "1"]
    shown = {n: box.get("outside") == "0" for box in tracks[1] for n in [int(box.get("frame") or -1)]}
    assert [n for n, visible in shown.items() if not visible] == [8, 15], "the gap of two frames was filled in"
    assert [n for n, visible in shown.items() if visible] == [n for n in range(30) if n != 8 and not 15 <= n < 24]
    occluded = [int(box.get("frame") or -1) for box in tracks[1] if box.get("occluded") == "1"]
    assert occluded == [5, 6]
    first = tracks[0][3]
    assert [float(first.get(side) or -1) for side in ("xtl", "ytl", "xbr", "ybr")] == [109, 50, 169, 230]


def test_a_track_that_ends_is_closed(tmp_path: Path) -> None:
    """Else CVAT and Label Studio would draw its last box until the end of the video."""
    images = [*video("a.mp4", range(20), 100), *video("a.mp4", range(20, 30))]
    run = make_run(tmp_path, images)
    write_tracks(run, TrackingSettings(), reuse=False)
    (text,) = members(export(run, "cvat_video")).values()
    boxes = ElementTree.fromstring(text).findall("track/box")
    assert [(box.get("frame"), box.get("outside")) for box in boxes[-2:]] == [("19", "0"), ("20", "1")]
    (task,) = json.loads(storage.read_bytes(export(run, "label_studio_video")))
    (region,) = task["predictions"][0]["result"]
    assert [step["enabled"] for step in region["value"]["sequence"]] == [True] * 19 + [False]


def test_tracks_of_some_frames_end_before_the_next_that_was_annotated(tmp_path: Path) -> None:
    """The length is that of the video, and not that of the frames that were annotated."""
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "a.mp4", [np.zeros((64, 96, 3), np.uint8)] * 20, options={"g": "10"})
    run = make_clip_run(tmp_path, {"a.mp4": [walkers(30 + n) for n in range(20)]}, every=6)
    write_tracks(run, TrackingSettings(), reuse=False)
    (text,) = members(export(run, "cvat_video")).values()
    root = ElementTree.fromstring(text)
    assert root.findtext("meta/task/size") == "20"
    boxes = [(int(box.get("frame") or -1), box.get("outside")) for box in root.findall("track/box")]
    assert boxes == [(0, "0"), (6, "0"), (12, "0"), (18, "0"), (19, "1")]
    (task,) = json.loads(storage.read_bytes(export(run, "label_studio_video")))
    (region,) = task["predictions"][0]["result"]
    assert region["value"]["framesCount"] == 20
    assert [step["enabled"] for step in region["value"]["sequence"]] == [True, True, True, False]
    (text,) = members(export(run, "posetrack")).values()
    assert {image["nframes"] for image in json.loads(text)["images"]} == {20}


def test_label_studio_video(run: Run) -> None:
    (task,) = json.loads(storage.read_bytes(export(run, "label_studio_video")))
    assert task["data"] == {"video": "in/a.mp4"}
    first, second = task["predictions"][0]["result"]
    assert (first["meta"], second["meta"]) == ({"track": 1}, {"track": 2})
    value = second["value"]
    assert (value["framesCount"], value["duration"], value["labels"]) == (30, 29 / 25, ["person"])
    steps = {step["frame"]: step for step in value["sequence"]}
    assert [n for n, step in steps.items() if not step["enabled"]] == [8, 15]
    assert list(steps)[-1] == 30
    expected = {"x": 100 * 403 / 640, "y": 100 * 50 / 480, "width": 100 * 60 / 640, "height": 100 * 180 / 480}
    assert {name: steps[2][name] for name in expected} == pytest.approx(expected, abs=2e-3)
    assert steps[2]["time"] == 1 / 25


def test_alphapose_has_the_tracks(run: Run) -> None:
    entries = json.loads(storage.read_bytes(export(run, "alphapose")))
    assert [entry["idx"] for entry in entries[:5]] == [[0], [1], [2], 1, 2]
    assert [entry["idx"] for entry in entries[-3:]] == [1, 2, 0]
    assert len(entries) == 3 + pq.read_table(run.path("tables", "people")).num_rows - 3


def test_opensim(tmp_path: Path) -> None:
    run = make_run(tmp_path, gait(50))
    with pytest.raises(UserError, match=r"has no joint angles; write them with jobs/reduce.py .* --motion"):
        export(run, "opensim")
    assert reduce([run.uri, "--motion", "--export", "opensim"]) == 0
    files = members(run.path("exports", "opensim.zip"))
    trc, mot = (next(data.decode() for name, data in files.items() if name.endswith(end)) for end in (".trc", ".mot"))
    lines = trc.splitlines()
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    assert (header["NumFrames"], header["NumMarkers"], float(header["DataRate"])) == ("50", "17", 25.0)
    assert [name for name in lines[3].split("\t")[2:] if name] == list(SKELETON.joints)
    rows = np.array([line.split("\t") for line in lines[5:]], float)
    tracks = pq.read_table(run.path("tables", "tracks")).to_pylist()
    np.testing.assert_allclose(rows[:, 1], [row["seconds"] for row in tracks], atol=1e-6)
    smooth = np.array([row["keypoints_smooth"] for row in tracks])
    np.testing.assert_allclose(rows[:, 2::3], smooth[..., 0], atol=1e-3)
    np.testing.assert_allclose(480 - rows[:, 3::3], smooth[..., 1], atol=1e-3)
    head, _, body = mot.partition("endheader\n")
    assert {"nRows=50", "inDegrees=yes", "version=1"} <= set(head.splitlines())
    angles = [line.split("\t") for line in body.splitlines()]
    motion = pq.read_table(run.path("tables", "motion")).to_pylist()
    column = angles[0].index("left_knee_flexion")
    expected = [row["left_knee_flexion"] for row in motion]
    np.testing.assert_allclose([float(line[column]) for line in angles[1:]], expected, rtol=1e-4, atol=1e-4)


def test_opensim_keeps_one_leg_if_the_other_is_seen_at_another_time(tmp_path: Path) -> None:
    """The right leg in the first 35 frames, the left one in the last 25 of 60, which leaves more of the right one."""
    images = gait(60)
    for n, (_, found) in enumerate(images):
        seen = [name.startswith("right") if n < 35 else name.startswith("left") for name in SKELETON.joints]
        legs = [name.endswith(("hip", "knee", "ankle")) for name in SKELETON.joints]
        found.keypoint_scores[0] = np.array(seen) & np.array(legs)
    run = make_run(tmp_path, images)
    assert reduce([run.uri, "--motion", "--export", "opensim"]) == 0
    (mot,) = (d.decode() for name, d in members(run.path("exports", "opensim.zip")).items() if name.endswith(".mot"))
    names, *rows = [line.split("\t") for line in mot.partition("endheader\n")[2].splitlines()]
    assert "right_shank_angle" in names
    assert not any(name.startswith("left") for name in names)
    assert 30 <= len(rows) <= 40
    assert np.isfinite(np.array(rows, float)).all()


@pytest.mark.parametrize("name", ["mot", "posetrack", "cvat_video", "label_studio_video"])
def test_without_videos_the_error_says_so(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, [photo("0.jpg")])
    with pytest.raises(UserError, match="has no tracks: it has no videos"):
        export(run, name)
