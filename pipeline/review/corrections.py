"""Corrected labels, read back from CVAT or Label Studio as COCO annotations of the reviewed images."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from pipeline import storage
from pipeline.coco.annotations import load_annotations, load_json
from pipeline.coco.categories import PERSON, USUAL_PERSON_ID
from pipeline.errors import UserError
from pipeline.review.queue import read_queue
from pipeline.run import Run
from pipeline.run.tables import table_skeleton
from pipeline.skeletons import Skeleton

_VISIBLE = 2


def write_corrections(run: Run, uri: str) -> str:
    """Write `review/corrected.json`, COCO annotations of the corrected images under their ids; returns its URI.

    Images that nobody has submitted are left out.

    Args:
        uri: COCO keypoints exported by CVAT, or the JSON exported by Label Studio.

    Raises:
        UserError: it is neither, or has no image of the run's review queue.
    """
    skeleton = table_skeleton(run.uri)
    by_name = {reviewed.name: reviewed.image_id for reviewed in read_queue(run)}

    def image_id(name: str) -> str | None:
        """The id of an image by its name in the export, which may have folders, or a prefix of the upload."""
        plain = unquote(name)
        for known, found in by_name.items():
            if name == known or plain.endswith(("/" + known, "-" + known)) or plain == known:
                return found
        return None

    content = load_json(uri)
    if isinstance(content, list):
        corrected = _from_label_studio(content, image_id, skeleton, uri)
    elif isinstance(content, dict) and "images" in content:
        corrected = _from_coco(load_annotations(uri), image_id, skeleton, uri)
    else:
        raise UserError(f"{uri} is neither COCO keypoints of CVAT nor JSON of Label Studio; export one of these")
    if not corrected["images"]:
        raise UserError(f"{uri} has no corrected image of the review queue of {run.uri}")
    category = {"id": USUAL_PERSON_ID, "name": PERSON, "keypoints": list(skeleton.joints)}
    target = run.path("review", "corrected.json")
    storage.write_bytes(target, json.dumps({**corrected, "categories": [category]}).encode())
    return target


def _from_coco(
    content: dict[str, Any], image_id: Callable[[str], str | None], skeleton: Skeleton, uri: str
) -> dict[str, Any]:
    names = {image["id"]: image_id(image["file_name"]) for image in content["images"]}
    images = [
        {**image, "file_name": names[image["id"]]} for image in content["images"] if names[image["id"]] is not None
    ]
    orders = {c["id"]: _joint_order(c.get("keypoints"), skeleton, uri) for c in content.get("categories", [])}
    annotations = []
    for entry in content.get("annotations", []):
        if names.get(entry["image_id"]) is None:
            continue
        joints, order = entry.get("keypoints", []), orders.get(entry["category_id"], range(len(skeleton)))
        if joints and len(joints) != 3 * len(order):
            raise UserError(
                f"{uri}: annotation {entry['id']} has {len(joints)} keypoint values, expected {3 * len(order)}"
            )
        keypoints = [value for joint in order for value in joints[3 * joint : 3 * joint + 3]]
        annotations.append({**entry, "category_id": USUAL_PERSON_ID, "keypoints": keypoints})
    return {"images": images, "annotations": annotations}


def _joint_order(names: list[str] | None, skeleton: Skeleton, uri: str) -> list[int]:
    """The position in the file of each joint of the skeleton; tools may sort the joints of their labels."""
    if not names:
        return list(range(len(skeleton)))
    if sorted(names) != sorted(skeleton.joints):
        other = sorted(set(names) ^ set(skeleton.joints))[:3]
        raise UserError(f"{uri} has other joints than the run's skeleton {skeleton.name}: {', '.join(other)}")
    return [names.index(joint) for joint in skeleton.joints]


def _from_label_studio(
    tasks: list[Any], image_id: Callable[[str], str | None], skeleton: Skeleton, uri: str
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, task in enumerate(tasks):
        try:
            name = image_id(task["data"]["image"])
            submitted = [a for a in task["annotations"] if not a.get("was_cancelled")]
            if name is None or not submitted:
                continue
            images.append({"id": len(images) + 1, "file_name": name})
            for person in _people(submitted[-1]["result"], skeleton):
                entry = {"id": len(annotations) + 1, "image_id": len(images), "category_id": USUAL_PERSON_ID}
                annotations.append({**entry, "iscrowd": 0, **person})
        except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
            raise UserError(
                f"{uri}: task {number} is not a task of Label Studio with annotations ({error!r}); export as JSON"
            ) from None
    return {"images": images, "annotations": annotations}


def _people(regions: list[dict[str, Any]], skeleton: Skeleton) -> list[dict[str, Any]]:
    """The rectangles with their points. A point without parent belongs to the smallest rectangle around it."""
    boxes: dict[str, list[float]] = {}
    for region in regions:
        if region["type"] == "rectanglelabels":
            value, width, height = region["value"], region["original_width"] / 100, region["original_height"] / 100
            x, y, w, h = value["x"] * width, value["y"] * height, value["width"] * width, value["height"] * height
            boxes[region["id"]] = [x, y, w, h]
    joints = {box: [0.0] * (3 * len(skeleton)) for box in boxes}
    for region in regions:
        if region["type"] != "keypointlabels":
            continue
        (label,) = region["value"]["keypointlabels"][:1]
        x = region["value"]["x"] * region["original_width"] / 100
        y = region["value"]["y"] * region["original_height"] / 100
        owner = region.get("parentID")
        if owner not in boxes:
            around = [b for b, (bx, by, bw, bh) in boxes.items() if bx <= x <= bx + bw and by <= y <= by + bh]
            owner = min(around, key=lambda b: boxes[b][2] * boxes[b][3], default=None)
        if owner is not None and label in skeleton.joints:
            index = skeleton.joints.index(label)
            joints[owner][3 * index : 3 * index + 3] = [x, y, _VISIBLE]
    return [
        {
            "bbox": box,
            "area": box[2] * box[3],
            "keypoints": joints[id_],
            "num_keypoints": sum(v > 0 for v in joints[id_][2::3]),
        }
        for id_, box in boxes.items()
    ]
