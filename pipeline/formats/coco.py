"""COCO keypoint results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline import storage
from pipeline.coco.annotations import person_category
from pipeline.coco.categories import USUAL_PERSON_ID
from pipeline.formats.common import extra_values, write_json_list
from pipeline.run import Run
from pipeline.run.detections import coco_keypoints, people_by_coco_id


def write_coco(run: Run) -> str:
    """Write `coco_results.json`: the people of images that have a COCO id.

    Their category is the person category of the run's annotations, 1 if the run has none.
    """
    annotations = run.settings.annotations
    person_id = person_category(annotations).id if annotations else None
    uri = run.path("coco_results.json")
    with storage.open_write(uri) as stream:
        write_json_list(stream, _entries(run, USUAL_PERSON_ID if person_id is None else person_id))
        stream.write(b"\n")
    return uri


def _entries(run: Run, person_id: int) -> Iterator[dict[str, Any]]:
    for image_ids, people in people_by_coco_id(run):
        poses, scores = coco_keypoints(people), people.pose_scores.tolist()
        for i, image_id in enumerate(image_ids.tolist()):
            yield {
                **extra_values(people, i),
                "image_id": image_id,
                "category_id": person_id,
                "keypoints": poses[i].ravel().tolist(),
                "score": scores[i],
            }
