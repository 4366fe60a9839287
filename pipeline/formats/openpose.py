"""OpenPose's JSON, and the CMU variant of it."""

from __future__ import annotations

import json
import zipfile
from typing import Literal

import numpy as np

from pipeline import storage
from pipeline.errors import UserError
from pipeline.formats.common import MemberNames, export_path, rounded
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.run.tables import table_skeleton
from pipeline.skeletons import Skeleton

# OpenPose's 18 joints, in its order. COCO's skeleton has no neck.
_OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
_VERSION = 1.3
# Readers expect all keys that OpenPose writes, also without face, hands and 3D.
_OTHER_KEYS: dict[str, list[int]] = {
    "person_id": [-1],
    "face_keypoints_2d": [],
    "hand_left_keypoints_2d": [],
    "hand_right_keypoints_2d": [],
    "pose_keypoints_3d": [],
    "face_keypoints_3d": [],
    "hand_left_keypoints_3d": [],
    "hand_right_keypoints_3d": [],
}


def write_openpose(run: Run) -> str:
    """A zip archive with `IMAGE_keypoints.json` for every image, also for images without people."""
    return _write_18(run, "openpose.zip", "people", "pose_keypoints_2d", _OTHER_KEYS)


def write_cmu(run: Run) -> str:
    """The same archive with the key names of the CMU variant."""
    return _write_18(run, "cmu.zip", "bodies", "joints", {})


def _write_18(
    run: Run, name: str, people_key: Literal["people", "bodies"], joints_key: str, other_keys: dict[str, list[int]]
) -> str:
    skeleton = table_skeleton(run.uri)
    uri = export_path(run, name)
    names = MemberNames()
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for image, people in images_with_people(run):
            joints = openpose_joints(people, skeleton)
            content = {
                "version": _VERSION,
                people_key: [{joints_key: rounded(person.ravel()), **other_keys} for person in joints],
            }
            archive.writestr(f"{names.stem(image['image_id'])}_keypoints.json", json.dumps(content))
    return uri


def openpose_joints(people: People, skeleton: Skeleton) -> np.ndarray:
    """(N, 18, 3) x y score in OpenPose's order.

    The neck is the middle of the shoulders, with the lower of their scores.

    Raises:
        UserError: the skeleton lacks one of COCO's body joints.
    """
    missing = [joint for joint in _OPENPOSE if joint != "neck" and joint not in skeleton.joints]
    if missing:
        raise UserError(f"the OpenPose format needs the joint {missing[0]}; {skeleton.name} does not have it")
    values = np.concatenate([people.keypoints, people.keypoint_scores[..., None]], axis=2)
    if not len(people):
        return np.zeros((0, len(_OPENPOSE), 3))
    shoulders = values[:, [skeleton.joints.index(side) for side in ("left_shoulder", "right_shoulder")]]
    neck = np.concatenate([shoulders[..., :2].mean(axis=1), shoulders[..., 2:].min(axis=1)], axis=1)
    joints = [skeleton.joints.index(joint) for joint in _OPENPOSE if joint != "neck"]
    return np.insert(values[:, joints], _OPENPOSE.index("neck"), neck, axis=1)
