"""COCO keypoint results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline import storage
from pipeline.coco.annotations import person_id
from pipeline.coco.categories import USUAL_PERSON_ID
from pipeline.errors import UserError
from pipeline.formats.common import extra_values, write_json_list
from pipeline.run import Run
from pipeline.run.detections import coco_keypoints, people_by_coco_id


def write_coco(run: Run) -> str:
    """Write `coco_results.json`: the people of images that have a COCO id.

    Their category is the person category of the run's annotations, 1 if the run has none.
    """
    uri = run.path("coco_results.json")
    with storage.open_write(uri) as stream:
        write_json_list(stream, _entries(run, _category_id(run)))
        stream.write(b"\n")
    return uri


def _entries(run: Run, category_id: int) -> Iterator[dict[str, Any]]:
    for image_ids, people in people_by_coco_id(run):
        poses, scores = coco_keypoints(people), people.pose_scores.tolist()
        for i, image_id in enumerate(image_ids.tolist()):
            yield {
                **extra_values(people, i),
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": poses[i].ravel().tolist(),
                "score": scores[i],
            }


def _category_id(run: Run) -> int:
    """The person category of the annotations of the run; the usual one if there are none or they cannot be read."""
    try:
        category_id = person_id(run.settings.annotations) if run.settings.annotations else None
    except (UserError, OSError):
        category_id = None
    return USUAL_PERSON_ID if category_id is None else category_id
