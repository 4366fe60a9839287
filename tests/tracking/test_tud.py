"""Tracks of boxes against the truth of two public sequences, judged by TrackEval.

The truth comes with PyPI's motmetrics; both packages are in an environment of their own. The detections are those of
Faster R-CNN, in ../shared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.packages import needs_uv, run_with
from support.paths import SHARED

from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.association import track_people
from pipeline.tracking.frames import FramePeople

DETECTIONS = SHARED / "clips" / "mot"
SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")
FPS = 25
_JUDGE = """
import json, pathlib, sys
import motmetrics, numpy as np
from trackeval.metrics import HOTA, Identity
folder, step = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def overlaps(a, b):
    a, b = (np.column_stack([x[:, :2], x[:, :2] + x[:, 2:]]) for x in (a, b))
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(sides, 0, None).prod(axis=2)
    area = lambda x: (x[:, 2:] - x[:, :2]).prod(axis=1)
    return shared / (area(a)[:, None] + area(b)[None] - shared)
metrics = {"HOTA": HOTA(), "Identity": Identity({"PRINT_CONFIG": False})}
results = {name: {} for name in metrics}
for sequence in sys.argv[3:]:
    truth = np.loadtxt(pathlib.Path(motmetrics.__file__).parent / "data" / sequence / "gt.txt", delimiter=",")
    truth = truth[(truth[:, 0] - 1) % step == 0]
    found = np.loadtxt(folder / (sequence + ".txt"), delimiter=",")
    ids = [np.unique(rows[:, 1], return_inverse=True)[1] for rows in (truth, found)]
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame in np.unique(truth[:, 0]):
        t, f = truth[:, 0] == frame, found[:, 0] == frame
        data["gt_ids"].append(ids[0][t])
        data["tracker_ids"].append(ids[1][f])
        data["similarity_scores"].append(overlaps(truth[t, 2:6], found[f, 2:6]))
    data |= {"num_timesteps": len(data["gt_ids"]), "num_gt_ids": ids[0].max() + 1, "num_tracker_ids": ids[1].max() + 1}
    data |= {"num_gt_dets": len(truth), "num_tracker_dets": len(found)}
    for name, metric in metrics.items():
        results[name][sequence] = metric.eval_sequence(data)
combined = {name: metric.combine_sequences(results[name]) for name, metric in metrics.items()}
print(json.dumps([float(np.mean(combined["HOTA"]["HOTA"])), float(combined["Identity"]["IDF1"])]))
"""


def judged(folder: Path, step: int, kind: str = "iou") -> tuple[float, float]:
    """HOTA and IDF1 of both sequences together, of each `step`-th frame."""
    for sequence in SEQUENCES:
        detections = np.loadtxt(DETECTIONS / f"{sequence}.txt", delimiter=",")
        numbers = range(1, int(detections[:, 0].max()) + 1, step)
        rows = [detections[detections[:, 0] == number] for number in numbers]
        frames = [
            FramePeople(
                number / FPS,
                np.column_stack([found[:, 2:4], found[:, 2:4] + found[:, 4:6]]),
                np.zeros((len(found), 0, 2)),
                np.zeros((len(found), 0)),
                found[:, 6],
            )
            for number, found in zip(numbers, rows, strict=True)
        ]
        tracks = track_people(frames, np.zeros(0), TrackingSettings.model_validate({"kind": kind}))
        lines = [
            ",".join(map(str, [number, track, *box[2:6], 1, -1, -1, -1]))
            for number, found, ids in zip(numbers, rows, tracks, strict=True)
            for box, track in zip(found, ids, strict=True)
            if track
        ]
        (folder / f"{sequence}.txt").write_text("\n".join(lines))
    hota, idf1 = run_with("trackeval==1.3.0 motmetrics==1.4.0", _JUDGE, str(folder), str(step), *SEQUENCES)
    return hota, idf1


@pytest.mark.slow
@needs_uv
@pytest.mark.skipif(not DETECTIONS.is_dir(), reason="needs ../shared/clips")
def test_pose_flows_follow_boxes_less_well(tmp_path: Path) -> None:
    """They are made for joints, and here there are none."""
    hota, idf1 = judged(tmp_path, 1, kind="poseflow")
    assert hota >= 0.45
    assert idf1 >= 0.6
    print(f"poseflow: HOTA {hota:.3f}, IDF1 {idf1:.3f}")


@pytest.mark.slow
@needs_uv
@pytest.mark.skipif(not DETECTIONS.is_dir(), reason="needs ../shared/clips")
def test_boxes_of_pedestrians_are_followed(tmp_path: Path) -> None:
    hota, idf1 = judged(tmp_path, 1)
    assert hota >= 0.52
    assert idf1 >= 0.73
    hota_of_half, idf1_of_half = judged(tmp_path, 2)
    assert hota_of_half >= hota - 0.02
    assert idf1_of_half >= idf1 - 0.02
    print(f"HOTA {hota:.3f}, IDF1 {idf1:.3f}; of every second frame {hota_of_half:.3f}, {idf1_of_half:.3f}")
