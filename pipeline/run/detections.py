"""The people of a run's tables as COCO detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.boxes import xyxy_to_xywh
from pipeline.coco.columns import Detections
from pipeline.coco.ids import CocoIds
from pipeline.coco.results import Results
from pipeline.people import People
from pipeline.run.columns import people_from_arrow
from pipeline.run.directory import Run
from pipeline.run.tables import read_table
from pipeline.skeletons import Skeleton

_DECIMALS = 3  # of a pixel, in COCO results


def run_poses(run: Run, ids: CocoIds[int], skeleton: Skeleton) -> Results:
    """The people of a reduced run in images that have a COCO id, with the values of `coco_results.json`."""
    tables = list(people_by_coco_id(run, ids))
    people = [People.empty(len(skeleton)), *(people for _, people in tables)]
    return Results(_concatenated([image_ids for image_ids, _ in tables], np.int64), pose_detections(people))


def pose_detections(people: Sequence[People]) -> Detections:
    """People of several images or tables, at least one, with the values of `coco_results.json`."""
    poses = np.concatenate([coco_keypoints(p) for p in people])
    scores = _concatenated([p.pose_scores for p in people], np.float64)
    return Detections.from_poses(poses[..., :2], poses[..., 2], scores)


def run_boxes(run: Run, ids: CocoIds[int]) -> Results:
    """The boxes of the same people, with the detector's scores."""
    tables = list(people_by_coco_id(run, ids))
    boxes_xyxy = _concatenated([np.zeros((0, 4)), *(people.boxes for _, people in tables)], np.float64)
    scores = _concatenated([people.box_scores for _, people in tables], np.float64)
    image_ids = _concatenated([image_ids for image_ids, _ in tables], np.int64)
    return Results(image_ids, Detections.from_boxes(xyxy_to_xywh(boxes_xyxy), scores))


def people_by_coco_id(run: Run, ids: CocoIds[int] | None = None) -> Iterator[tuple[np.ndarray, People]]:
    """COCO image ids (N,) and the N people of each table that has any.

    Args:
        ids: by default the ids in the tables.
    """
    for table in read_table(run.uri, "people"):
        if ids is None:
            image_ids = table["coco_id"].to_pylist()
        else:
            image_ids = [ids.get(image_id) for image_id in table["image_id"].to_pylist()]
        known = np.array([image_id is not None for image_id in image_ids], bool)
        if known.any():
            yield np.array([i for i in image_ids if i is not None], np.int64), people_from_arrow(table)[known]


def coco_keypoints(people: People) -> np.ndarray:
    """(N, K, 3) x y score, rounded as in COCO results: further decimals would only fill disks."""
    values = np.concatenate([people.keypoints, people.keypoint_scores[..., None]], axis=2)
    return np.round(values.astype(np.float64), _DECIMALS)


def _concatenated(columns: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(columns).astype(dtype) if columns else np.zeros(0, dtype)
