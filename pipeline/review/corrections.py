"""Corrected labels, read back from CVAT or Label Studio as COCO annotations of the reviewed images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from pipeline import storage
from pipeline.coco.annotations import load_annotations, load_json
from pipeline.coco.categories import PERSON, USUAL_PERSON_ID
from pipeline.errors import UserError
from pipeline.review.queue import read_queue
from pipeline.run import Run
from pipeline.run.tables import table_skeleton
from pipeline.skeletons import Skeleton

_VISIBLE = 2
_ROUNDING_PX = 0.1  # Label Studio has percent with three decimals


class Corrections(NamedTuple):
    """Corrected labels.

    Attributes:
        annotations: URI of `review/corrected.json`.
        num_images, num_unchanged: corrected images, and those of them whose labels are as they were uploaded.
    """

    annotations: str
    num_images: int
    num_unchanged: int


def write_corrections(run: Run, uri: str) -> Corrections:
    """Write `review/corrected.json`, COCO annotations of the corrected images under their ids.

    Tasks of Label Studio that nobody has submitted are left out. An export of CVAT does not say who has opened an
    image: all its images count.

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
        exact = by_name.get(name) or by_name.get(plain) or by_name.get(storage.basename(plain))
        if exact is not None:
            return exact
        return next((found for known, found in by_name.items() if plain.endswith(f"-{known}")), None)

    content = load_json(uri)
    try:
        if isinstance(content, list):
            corrected = _from_label_studio(content, image_id, skeleton)
        elif isinstance(content, dict) and "images" in content:
            corrected = _from_coco(load_annotations(uri), image_id, skeleton)
        else:
            raise UserError("it is neither COCO keypoints of CVAT nor JSON of Label Studio")
    except UserError as error:
        raise UserError(f"{uri} cannot be read as corrections: {str(error).removeprefix(f'{uri}: ')}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"{uri} is not an export of CVAT (COCO Keypoints 1.0) or of Label Studio (JSON): {error!r}"
        ) from None
    if not corrected["images"]:
        raise UserError(f"{uri} has no corrected image of the review queue of {run.uri}")
    category = {"id": USUAL_PERSON_ID, "name": PERSON, "keypoints": list(skeleton.joints)}
    target = run.path("review", "corrected.json")
    storage.write_bytes(target, json.dumps({**corrected, "categories": [category]}).encode())
    uploaded = _poses(load_annotations(run.path("review", "cvat-person_keypoints.json")), by_name)
    now = _poses(corrected, None)
    unchanged = sum(_same(poses, uploaded.get(image_id, [])) for image_id, poses in now.items())
    return Corrections(target, len(now), unchanged)


def _poses(content: Mapping[str, Any], by_name: Mapping[str, str] | None) -> dict[str, list[np.ndarray]]:
    """(K, 3) x y v of the people of each image, by image id.

    Args:
        by_name: image id by the name in the content; None if the names are the ids.
    """
    names = {i["id"]: by_name.get(i["file_name"]) if by_name is not None else i["file_name"] for i in content["images"]}
    poses: dict[str, list[np.ndarray]] = {name: [] for name in names.values() if name is not None}
    for entry in content["annotations"]:
        name = names.get(entry["image_id"])
        if name is not None:
            poses[name].append(np.reshape(entry["keypoints"], (-1, 3)))
    return poses


def _same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Whether two lists of people, in any order, are the same up to rounding."""
    ordered = [sorted(poses, key=lambda pose: tuple(pose[:, 0].round())) for poses in (a, b)]
    return len(a) == len(b) and all(
        x.shape == y.shape and bool(np.allclose(x, y, atol=_ROUNDING_PX)) for x, y in zip(*ordered, strict=True)
    )


def _from_coco(content: dict[str, Any], image_id: Callable[[str], str | None], skeleton: Skeleton) -> dict[str, Any]:
    names = {image["id"]: image_id(image["file_name"]) for image in content["images"]}
    images = [
        {**image, "file_name": names[image["id"]]} for image in content["images"] if names[image["id"]] is not None
    ]
    orders = {c["id"]: _joint_order(c.get("keypoints"), skeleton) for c in content.get("categories", [])}
    annotations = []
    for entry in content.get("annotations", []):
        if names.get(entry["image_id"]) is None:
            continue
        joints, order = entry.get("keypoints", []), orders.get(entry["category_id"], range(len(skeleton)))
        if joints and len(joints) != 3 * len(order):
            raise UserError(f"annotation {entry['id']} has {len(joints)} keypoint values, not {3 * len(order)}")
        keypoints = [value for joint in order for value in joints[3 * joint : 3 * joint + 3]]
        annotations.append({**entry, "category_id": USUAL_PERSON_ID, "keypoints": keypoints})
    return {"images": images, "annotations": annotations}


def _joint_order(names: list[str] | None, skeleton: Skeleton) -> list[int]:
    """The position in the file of each joint of the skeleton; tools may sort the joints of their labels."""
    if not names:
        return list(range(len(skeleton)))
    if sorted(names) != sorted(skeleton.joints):
        other = sorted(set(names) ^ set(skeleton.joints))[:3]
        raise UserError(f"it has other joints than the run's skeleton {skeleton.name}: {', '.join(other)}")
    return [names.index(joint) for joint in skeleton.joints]


def _from_label_studio(tasks: list[Any], image_id: Callable[[str], str | None], skeleton: Skeleton) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for task in tasks:
        name = image_id(task["data"]["image"])
        submitted = [a for a in task["annotations"] if not a.get("was_cancelled")]
        if name is None or not submitted:
            continue
        images.append({"id": len(images) + 1, "file_name": name})
        for person in _people(submitted[-1]["result"], skeleton):
            entry = {"id": len(annotations) + 1, "image_id": len(images), "category_id": USUAL_PERSON_ID}
            annotations.append({**entry, "iscrowd": 0, **person})
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
