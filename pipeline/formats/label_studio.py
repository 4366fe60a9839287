"""Label Studio tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.formats.common import (
    box_inside,
    export_path,
    images_with_people,
    is_visible,
    rounded,
    write_json_list,
    xywh,
)
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.tables import table_skeleton


def write_label_studio(run: Run) -> str:
    """Tasks with pre-annotations: a rectangle per person and a point per visible joint, in percent of the image.

    The labelling interface needs an `Image` named `image`, `RectangleLabels` named `person` and `KeyPointLabels` named
    `joint`. The image is the id in the collection; replace it with a URL of your own server.
    """
    skeleton = table_skeleton(run.uri)

    def tasks() -> Iterator[dict[str, Any]]:
        for image, people in images_with_people(run):
            result = [entry for i in range(len(people)) for entry in _regions(image, people, i, skeleton.joints)]
            yield {"data": {"image": image["image_id"]}, "predictions": [{"result": result}]}

    uri = export_path(run, "label-studio.json")
    with storage.open_write(uri) as stream:
        write_json_list(stream, tasks())
    return uri


def _regions(image: dict[str, Any], people: People, i: int, joints: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    width, height = image["width"], image["height"]
    shared = {"to_name": "image", "original_width": width, "original_height": height}
    percent = 100 / np.array([width, height] * 2)
    x, y, w, h = rounded(np.array(xywh(box_inside(people, i, width, height))) * percent)
    yield {
        **shared,
        "id": f"person{i}",
        "from_name": "person",
        "type": "rectanglelabels",
        "value": {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": ["person"]},
        "score": float(people.pose_scores[i]),
    }
    for joint in np.flatnonzero(is_visible(people, i, width, height)):
        x, y = rounded(people.keypoints[i, joint] * percent[:2])
        yield {
            **shared,
            "id": f"person{i}_{joints[joint]}",
            "parentID": f"person{i}",
            "from_name": "joint",
            "type": "keypointlabels",
            "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": [joints[joint]]},
            "score": float(people.keypoint_scores[i, joint]),
        }
