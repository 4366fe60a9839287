"""Formats of tools that learn from people, or in which people correct them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

from pipeline import storage
from pipeline.evaluation.truth import PERSON
from pipeline.exports.people import CLEAR, export_path, images_with_people, member_name, rounded, write_list, xywh
from pipeline.people import People
from pipeline.run import Run
from pipeline.tables import table_skeleton

_LABELLED_AND_VISIBLE = 2


def write_yolo(run: Run) -> str:
    """An archive of YOLO-pose labels: `data.yaml`, and `labels/IMAGE.txt` with a line per person, empty for nobody.

    A line is the class 0, the box's centre and size, and x y v of each joint, all relative to the image.
    """
    skeleton = table_skeleton(run.uri)
    uri = export_path(run, "yolo-pose.zip")
    description = {"kpt_shape": [len(skeleton), 3], "flip_idx": skeleton.mirror, "names": {0: "person"}}
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.yaml", yaml.safe_dump(description, default_flow_style=None))
        for image, people in images_with_people(run):
            lines = [_yolo_line(people, i, image["width"], image["height"]) for i in range(len(people))]
            archive.writestr(f"labels/{member_name(image['image_id'], '.txt')}", "".join(lines))
    return uri


def _yolo_line(people: People, i: int, width: int, height: int) -> str:
    size = np.array([width, height])
    first, last = people.boxes[i, :2] / size, people.boxes[i, 2:] / size
    joints = seen_joints(people, i)
    joints[:, :2] /= size
    values = [*(first + last) / 2, *(last - first), *joints.ravel()]
    return " ".join(["0", *(f"{value:.6g}" for value in values)]) + "\n"


def write_cvat(run: Run) -> str:
    """COCO keypoint annotations with the skeleton, as CVAT imports them (`COCO Keypoints 1.0`)."""
    skeleton = table_skeleton(run.uri)
    category = {
        "id": PERSON,
        "name": "person",
        "supercategory": "",
        "keypoints": list(skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }

    def images() -> Iterator[dict[str, Any]]:
        for number, (image, _) in enumerate(images_with_people(run), 1):
            size = {"width": image["width"], "height": image["height"]}
            yield {"id": number, "file_name": image["image_id"], **size}

    def annotations() -> Iterator[dict[str, Any]]:
        count = 0
        for number, (_, people) in enumerate(images_with_people(run), 1):
            for i in range(len(people)):
                count += 1
                joints, box = seen_joints(people, i), xywh(people.boxes[i])
                yield {
                    "id": count,
                    "image_id": number,
                    "category_id": PERSON,
                    "iscrowd": 0,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "keypoints": rounded(joints.ravel()),
                    "num_keypoints": int((joints[:, 2] > 0).sum()),
                    "score": float(people.pose_scores[i]),
                }

    uri = export_path(run, "cvat-person_keypoints.json")
    with storage.open_write(uri) as stream:
        for start, entries in ((b'{"images": ', images()), (b',\n"annotations": ', annotations())):
            stream.write(start)
            write_list(stream, entries)
        stream.write(b',\n"categories": ')
        write_list(stream, [category])
        stream.write(b"}\n")
    return uri


def write_label_studio(run: Run) -> str:
    """Label Studio tasks with pre-annotations: a rectangle per person and a point per clear joint, in percent.

    The labelling interface needs an `Image` named `image`, `RectangleLabels` named `person` and `KeyPointLabels` named
    `joint`; the image is the id of the collection, to be made a URL of one's own server.
    """
    skeleton = table_skeleton(run.uri)

    def tasks() -> Iterator[dict[str, Any]]:
        for image, people in images_with_people(run):
            result = [entry for i in range(len(people)) for entry in _regions(image, people, i, skeleton.joints)]
            yield {"data": {"image": image["image_id"]}, "predictions": [{"result": result}]}

    uri = export_path(run, "label-studio.json")
    with storage.open_write(uri) as stream:
        write_list(stream, tasks())
    return uri


def _regions(image: dict[str, Any], people: People, i: int, joints: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    width, height = image["width"], image["height"]
    shared = {"to_name": "image", "original_width": width, "original_height": height}
    percent = 100 / np.array([width, height] * 2)
    x, y, w, h = rounded(np.array(xywh(people.boxes[i])) * percent)
    yield {
        **shared,
        "id": f"person{i}",
        "from_name": "person",
        "type": "rectanglelabels",
        "value": {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": ["person"]},
        "score": float(people.pose_scores[i]),
    }
    for joint in np.flatnonzero(people.keypoint_scores[i] >= CLEAR):
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


def seen_joints(people: People, i: int) -> np.ndarray:
    """(K, 3) x y v of one person: v is 2 for a clear joint, and all is 0 for others, as COCO has it."""
    clear = people.keypoint_scores[i] >= CLEAR
    joints = np.column_stack([people.keypoints[i], np.full(len(clear), _LABELLED_AND_VISIBLE)]).astype(float)
    joints[~clear] = 0
    return joints
