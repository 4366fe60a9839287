"""CVAT: COCO keypoint annotations with the skeleton, to import and correct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import storage
from pipeline.coco.categories import PERSON, USUAL_PERSON_ID
from pipeline.formats.common import (
    box_inside,
    export_path,
    rounded,
    visible_joints,
    write_json_list,
    xywh,
)
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.run.tables import table_skeleton


def write_cvat(run: Run, uri: str | None = None, names: Mapping[str, str] | None = None) -> str:
    """COCO keypoint annotations as CVAT imports them (`COCO Keypoints 1.0`).

    Args:
        uri: of the file; by default in `exports/`.
        names: see `images_with_people`.
    """
    skeleton = table_skeleton(run.uri)
    category = {
        "id": USUAL_PERSON_ID,
        "name": PERSON,
        "supercategory": "",
        "keypoints": list(skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }

    def images() -> Iterator[dict[str, Any]]:
        for number, (image, _) in enumerate(images_with_people(run, names), 1):
            size = {"width": image["width"], "height": image["height"]}
            yield {"id": number, "file_name": image["image_id"], **size}

    def annotations() -> Iterator[dict[str, Any]]:
        count = 0
        for number, (image, people) in enumerate(images_with_people(run, names), 1):
            for i in range(len(people)):
                count += 1
                size = (image["width"], image["height"])
                joints, box = visible_joints(people, i, *size), xywh(box_inside(people, i, *size))
                yield {
                    "id": count,
                    "image_id": number,
                    "category_id": USUAL_PERSON_ID,
                    "iscrowd": 0,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "segmentation": [],
                    "keypoints": rounded(joints.ravel()),
                    "num_keypoints": int((joints[:, 2] > 0).sum()),
                    "score": float(people.pose_scores[i]),
                }

    uri = uri or export_path(run, "cvat-person_keypoints.json")
    with storage.open_write(uri) as stream:
        stream.write(b'{"info": {}, "licenses": [],\n')
        for start, entries in ((b'"images": ', images()), (b',\n"annotations": ', annotations())):
            stream.write(start)
            write_json_list(stream, entries)
        stream.write(b',\n"categories": ')
        write_json_list(stream, [category])
        stream.write(b"}\n")
    return uri
