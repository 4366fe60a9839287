"""The tables of a run as COCO results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.evaluation.keypoints import PERSON
from pipeline.people import People
from pipeline.run import Run
from pipeline.sources import CocoIds
from pipeline.tables import read_table, to_people


def keypoint_results(run: Run, ids: CocoIds | None = None) -> Iterator[dict[str, Any]]:
    """COCO keypoint results of the people in images with a COCO id; streams.

    Args:
        run: a reduced run.
        ids: ids by the images' names; by default those that the run was told.
    """
    return _results(run, ids, _keypoint_entry)


def box_results(run: Run, ids: CocoIds | None = None) -> Iterator[dict[str, Any]]:
    """COCO detection results of the same people, scored by their boxes."""
    return _results(run, ids, _box_entry)


def write_coco_results(run: Run) -> str:
    """Write `coco_results.json` and return its URI; one table at a time in memory."""
    uri = run.path("coco_results.json")
    with storage.open_write(uri) as stream:
        stream.write(b"[")
        for number, entry in enumerate(keypoint_results(run)):
            stream.write((b",\n" if number else b"\n") + json.dumps(entry).encode())
        stream.write(b"\n]\n")
    return uri


def _results(
    run: Run, ids: CocoIds | None, entry: Callable[[int, People, int], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for table in read_table(run.uri, "people"):
        people = to_people(table)
        for row, coco_id in enumerate(_coco_ids(table, ids)):
            if coco_id is not None:
                yield entry(coco_id, people, row)


def _coco_ids(table: pa.Table, ids: CocoIds | None) -> list[int | None]:
    if ids is None:
        return table["coco_id"].to_pylist()
    return [ids.get(image_id) for image_id in table["image_id"].to_pylist()]


def _keypoint_entry(coco_id: int, people: People, row: int) -> dict[str, Any]:
    values = np.column_stack([people.keypoints[row], people.keypoint_scores[row]])
    return {
        "image_id": coco_id,
        "category_id": PERSON,
        "keypoints": [round(v, 3) for v in values.ravel().astype(float).tolist()],
        "score": float(people.pose_scores[row]),
    }


def _box_entry(coco_id: int, people: People, row: int) -> dict[str, Any]:
    x1, y1, x2, y2 = people.boxes[row].astype(float).tolist()
    score = float(people.box_scores[row])
    return {"image_id": coco_id, "category_id": PERSON, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
