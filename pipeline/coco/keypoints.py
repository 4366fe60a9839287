"""Keypoints of an annotation, with COCO-WholeBody's columns joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# COCO-WholeBody stores the joints after the 17 of the body in separate columns.
WHOLE_BODY_COLUMNS = ("foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
WHOLE_BODY_JOINTS = 133


def has_whole_body_columns(entry: Mapping[str, Any]) -> bool:
    return any(column in entry for column in WHOLE_BODY_COLUMNS)


def joined_keypoints(entry: Mapping[str, Any], num_joints: int) -> list[Any]:
    """The values x y v of an annotation's joints, one after another.

    Args:
        entry: an annotation; [] is returned if it has no `keypoints`.
        num_joints: joints that are expected; if 133, COCO-WholeBody's columns of feet, face and hands are appended
            to the 17 of `keypoints`.
    """
    values = [] if entry.get("keypoints") is None else list(entry["keypoints"])
    if num_joints == WHOLE_BODY_JOINTS and len(values) < 3 * num_joints:
        values += [value for column in WHOLE_BODY_COLUMNS for value in entry.get(column) or ()]
    return values
