"""AlphaPose's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.coco.categories import USUAL_PERSON_ID
from pipeline.formats.common import export_path, extra_values, rounded, write_json_list, xywh
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.tracking.tables import TrackIds


def write_alphapose(run: Run) -> str:
    """A list with an entry per person: COCO's keypoints and score, the image's name, `box` x y w h, and `idx`.

    `idx` is the track of a person in a frame of a video, 0 without a track; in images it is [number of the person].
    """

    def entries() -> Iterator[dict[str, Any]]:
        tracks = TrackIds(run)
        for image, people in images_with_people(run, weak=True):
            ids = tracks.of(image)
            for i in range(len(people)):
                if i >= image["num_people"] and i not in ids:  # a weak person without a track
                    continue
                values = np.column_stack([people.keypoints[i], people.keypoint_scores[i]]).ravel()
                yield {
                    **extra_values(people, i),
                    "image_id": image["image_id"],
                    "category_id": USUAL_PERSON_ID,
                    "keypoints": rounded(values),
                    "score": float(people.pose_scores[i]),
                    "box": xywh(people.boxes[i]),
                    "idx": [i] if image["video"] is None else ids.get(i, 0),
                }

    uri = export_path(run, "alphapose-results.json")
    with storage.open_write(uri) as stream:
        write_json_list(stream, entries())
    return uri
