"""The evaluation of a run's tracks as a whole, from its tables and files of annotations, against other judges."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from evaluation.tracks.test_track_metrics import TRACKEVAL
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.packages import needs_uv, run_with
from support.video_runs import SKELETON, make_run, video, walkers

from pipeline.boxes import xyxy_to_xywh
from pipeline.evaluation.tracks.evaluate import evaluate_tracks
from pipeline.people import People
from pipeline.run import Run
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import write_tracks
from pipeline.tracking.videos import tracked_videos

pytestmark = [pytest.mark.slow, needs_uv]  # each installs packages

FRAMES = 80
HEAD = (0, 0, 24, 32)  # x, y, width, height
SHARED_JOINTS = ["nose", "left_shoulder", "left_knee", "right_ankle"]
NAMES = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "switches", "IDF1")


class Case(NamedTuple):
    """A run, and the annotated people of its frames, who are the same in each."""

    run: Run
    boxes: list[np.ndarray]  # (G, 4) x y width height
    joints: list[np.ndarray]  # (G, 17, 2)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Five people who walk through each other. Some are missed, displaced, doubled or invented."""
    random = np.random.default_rng(3)
    starts, speeds = np.array([20.0, 90, 200, 330, 420]), np.array([5.0, -1, 3, -2, -4])
    images, boxes, joints = [], [], []
    for number, (row, _) in enumerate(video("clips/crowd.mp4", range(FRAMES))):
        true = walkers(*(starts + speeds * number))
        boxes.append(xyxy_to_xywh(true.boxes.astype(float)))
        joints.append(true.keypoints.astype(float))
        found = true[np.flatnonzero(random.random(5) < 0.85)]
        found = People.concatenate([found, walkers(*random.uniform(0, 500, random.poisson(0.3)))])
        shift = random.normal(0, 5, (len(found), 1, 2))
        found.boxes[:] += shift.reshape(-1, 2)[:, [0, 1, 0, 1]] + random.normal(0, 3, (len(found), 4))
        found.keypoints[:] += shift + random.normal(0, 5, found.keypoints.shape)
        images.append((row, found))
    run = make_run(tmp_path_factory.mktemp("crowd"), images)
    write_tracks(run, TrackingSettings(), reuse=False)
    return Case(run, boxes, joints)


def found_people(run: Run) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """Of each frame the tracks of the detected people, their boxes xyxy, and their joints."""
    (crowd,) = tracked_videos(run)
    detected = [[t for t in frame.tracked if t.person is not None] for frame in crowd.frames]
    return [
        ([t.track for t in people], frame.people.boxes[[t.person for t in people]],
         frame.people.keypoints[[t.person for t in people]])
        for frame, people in zip(crowd.frames, detected, strict=True)
    ]  # fmt: skip


def posetrack(case: Case, names: list[str]) -> dict:
    chosen = [SKELETON.joints.index(name) for name in names]
    images = [{"id": n, "file_name": f"images/crowd/{n:06d}.jpg", "is_labeled": True} for n in range(FRAMES)]
    annotations = [
        {
            "id": 1 + 5 * n + track, "image_id": n, "track_id": track, "category_id": 1, "bbox": box.tolist(),
            "bbox_head": HEAD, "keypoints": [v for x, y in joints[chosen] for v in (x, y, 1)],
        }
        for n in range(FRAMES)
        for track, (box, joints) in enumerate(zip(case.boxes[n], case.joints[n], strict=True))
    ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "keypoints": names}]}


_MOT = """
import contextlib, io, json, sys
import numpy as np, trackeval
truth, trackers, frames = sys.argv[1], sys.argv[2], int(sys.argv[3])
quiet = {"PRINT_CONFIG": False}
with contextlib.redirect_stdout(io.StringIO()):
    dataset = trackeval.datasets.MotChallenge2DBox({
        "GT_FOLDER": truth, "TRACKERS_FOLDER": trackers, "SKIP_SPLIT_FOL": True, "SEQ_INFO": {"crowd": frames},
        **quiet})
    judge = trackeval.Evaluator({"PRINT_RESULTS": False, "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False,
                                 "PLOT_CURVES": False, "TIME_PROGRESS": False, "BREAK_ON_ERROR": True, **quiet})
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
    scores = judge.evaluate([dataset], metrics)[0]["MotChallenge2DBox"]["ours"]["crowd"]["pedestrian"]
print(json.dumps([*(float(np.mean(scores["HOTA"][name])) for name in ("HOTA", "DetA", "AssA")),
                  *(float(scores["CLEAR"][name]) for name in ("MOTA", "MOTP", "IDSW")),
                  float(scores["Identity"]["IDF1"])]))
"""


def test_boxes_are_judged_as_by_trackeval(case: Case, tmp_path: Path) -> None:
    """It reads the files of MOTChallenge by itself, and compares the boxes."""
    truth = tmp_path / "truth" / "crowd" / "gt" / "gt.txt"
    found = tmp_path / "found" / "ours" / "data" / "crowd.txt"
    for path in (truth, found):
        path.parent.mkdir(parents=True)
    truth.write_text("\n".join(
        ",".join(map(str, [n + 1, track + 1, x + 1, y + 1, w, h, 1, 1, 1]))
        for n, boxes in enumerate(case.boxes) for track, (x, y, w, h) in enumerate(boxes.tolist())
    ))  # fmt: skip
    found.write_text("\n".join(
        ",".join(map(str, [n + 1, track, x1 + 1, y1 + 1, x2 - x1, y2 - y1, 1, -1, -1, -1]))
        for n, (tracks, boxes, _) in enumerate(found_people(case.run))
        for track, (x1, y1, x2, y2) in zip(tracks, boxes.astype(float).tolist(), strict=True)
    ))  # fmt: skip
    expected = run_with("trackeval==1.3.0", _MOT, str(tmp_path / "truth"), str(tmp_path / "found"), str(FRAMES))
    scores = evaluate_tracks(case.run, str(tmp_path / "truth")).boxes["all"]
    assert scores["switches"] > 5
    assert 0.3 < scores["HOTA"] < 0.9
    np.testing.assert_allclose([scores[name] for name in NAMES], expected, atol=1e-9)


def test_poses_are_judged_as_by_trackeval_with_the_oks_of_pycocotools(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "crowd.json"
    path.write_text(json.dumps(posetrack(case, list(SKELETON.joints))))
    coco = posetrack(case, list(SKELETON.joints))
    for annotation in coco["annotations"]:
        area = annotation["bbox"][2] * annotation["bbox"][3]
        annotation |= {"area": area, "num_keypoints": 17, "iscrowd": 0}
    found = found_people(case.run)
    results = [
        {
            "image_id": n, "category_id": 1, "score": 1 - i / 100,
            "keypoints": np.concatenate([joints, np.ones((17, 1))], axis=1).ravel().tolist(),
        }
        for n, (_, _, people) in enumerate(found) for i, joints in enumerate(people.astype(float))
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "keypoints")
        judge._prepare()
        similar = [np.reshape(judge.computeOks(n, 1), (-1, 5)).T for n in range(FRAMES)]
    frames = [[[*range(5)], found[n][0], similar[n].tolist()] for n in range(FRAMES)]
    (tmp_path / "in").write_text(json.dumps([frames]))
    expected = run_with("trackeval==1.3.0", TRACKEVAL, str(tmp_path / "in"))
    scores = evaluate_tracks(case.run, str(path)).poses["all"]
    assert 0.1 < scores["HOTA"] < 0.9
    np.testing.assert_allclose([scores[name] for name in NAMES], expected, atol=1e-9)


_JOINTS = """
import json, sys
import motmetrics, numpy as np
motas = []
for frames in json.load(open(sys.argv[1])):  # of one joint
    judge = motmetrics.MOTAccumulator(auto_id=True)
    for true, found, distances in frames:
        distances = np.reshape(np.array(distances, float), (len(true), len(found)))
        judge.update(true, found, np.where(distances <= 0.5, distances, np.nan))
    motas.append(float(motmetrics.metrics.create().compute(judge, metrics=["mota"])["mota"].iloc[0]))
print(json.dumps(motas))
"""


def test_joints_are_judged_as_by_motmetrics(case: Case, tmp_path: Path) -> None:
    """PoseTrack: a joint is found within half of the head's size, 0.6 of the diagonal of its box."""
    path = tmp_path / "crowd.json"
    path.write_text(json.dumps(posetrack(case, SHARED_JOINTS)))
    found = found_people(case.run)
    sequences = [
        [
            [
                [*range(5)],
                tracks,
                (np.linalg.norm(case.joints[n][:, None, j] - people[None, :, j].astype(float), axis=2) / 24).tolist(),
            ]
            for n, (tracks, _, people) in enumerate(found)
        ]
        for j in map(SKELETON.joints.index, SHARED_JOINTS)
    ]
    (tmp_path / "in").write_text(json.dumps(sequences))
    expected = run_with("motmetrics==1.4.0", _JOINTS, str(tmp_path / "in"))
    joints = evaluate_tracks(case.run, str(path)).joints
    assert min(expected) < 0.7
    np.testing.assert_allclose([joints[name] for name in SHARED_JOINTS], expected, atol=1e-9)
    assert joints["mean"] == pytest.approx(np.mean(expected), abs=1e-9)
