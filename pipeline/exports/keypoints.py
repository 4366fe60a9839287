"""Formats of pose tools: AlphaPose's own, and the two that it shares with OpenPose and CMU."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from pipeline import storage
from pipeline.evaluation.truth import PERSON
from pipeline.exports.people import export_path, images_with_people, member_name, rounded, write_list, xywh
from pipeline.people import People
from pipeline.run import Run
from pipeline.skeletons import Skeleton
from pipeline.tables import table_skeleton

# OpenPose's 18 joints, in its order; it has a neck, which COCO's skeleton has not.
_OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
_VERSION = 1.3


def write_alphapose(run: Run) -> str:
    """A list with an entry per person: COCO's keypoints and score, the image's name, `box` x y w h, and `idx`."""

    def entries() -> Iterator[dict[str, Any]]:
        for image, people in images_with_people(run):
            for i in range(len(people)):
                values = np.column_stack([people.keypoints[i], people.keypoint_scores[i]]).ravel()
                yield {
                    "image_id": image["image_id"],
                    "category_id": PERSON,
                    "keypoints": rounded(values),
                    "score": float(people.pose_scores[i]),
                    "box": xywh(people.boxes[i]),
                    "idx": [i],
                }

    uri = export_path(run, "alphapose-results.json")
    with storage.open_write(uri) as stream:
        write_list(stream, entries())
    return uri


def write_openpose(run: Run) -> str:
    """An archive with `IMAGE_keypoints.json` for every image, also of those without people."""
    return _write_18(run, "openpose.zip", "people", "pose_keypoints_2d")


def write_cmu(run: Run) -> str:
    """The same archive with the names of the CMU form."""
    return _write_18(run, "cmu.zip", "bodies", "joints")


def _write_18(run: Run, name: str, people_key: Literal["people", "bodies"], joints_key: str) -> str:
    skeleton = table_skeleton(run.uri)
    uri = export_path(run, name)
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for image, people in images_with_people(run):
            joints = openpose_joints(people, skeleton)
            content = {
                "version": _VERSION,
                people_key: [{joints_key: rounded(person.ravel())} for person in joints],
            }
            archive.writestr(member_name(image["image_id"], "_keypoints.json"), json.dumps(content))
    return uri


def openpose_joints(people: People, skeleton: Skeleton) -> np.ndarray:
    """(N, 18, 3) x y score in OpenPose's order; the neck lies between the shoulders, as sure as the less sure of them.

    Raises:
        ValueError: the skeleton is no body with COCO's joints.
    """
    missing = [joint for joint in _OPENPOSE if joint != "neck" and joint not in skeleton.joints]
    if missing:
        raise ValueError(f"OpenPose's form needs {missing[0]}, which {skeleton.name} has not")
    values = np.concatenate([people.keypoints, people.keypoint_scores[..., None]], axis=2)
    if not len(people):
        return np.zeros((0, len(_OPENPOSE), 3))
    shoulders = values[:, [skeleton.joints.index(side) for side in ("left_shoulder", "right_shoulder")]]
    neck = np.concatenate([shoulders[..., :2].mean(axis=1), shoulders[..., 2:].min(axis=1)], axis=1)
    places = [skeleton.joints.index(joint) for joint in _OPENPOSE if joint != "neck"]
    return np.insert(values[:, places], _OPENPOSE.index("neck"), neck, axis=1)
