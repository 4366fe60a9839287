"""The percentage of correct keypoints, found within a share of the box (Yang and Ramanan, TPAMI 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.skeletons import Skeleton

_HEAD = ("nose", "eye", "ear", "head", "face", "neck")


@dataclass(frozen=True)
class Pck:
    """Shares of correct joints.

    Attributes:
        joints: by joint name; NaN where none is labelled.
        body: mean over all labelled joints below the head; NaN without any.
        people: persons that were counted.
    """

    joints: dict[str, float]
    body: float
    people: int


def pck(
    found: np.ndarray,
    true: np.ndarray,
    labelled: np.ndarray,
    boxes: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.1,
    least_joints: int = 8,
    least_side_px: float = 32.0,
) -> Pck:
    """PCK of poses whose true person is known.

    Args:
        found, true: (N, K, 2) x y in pixels of one frame.
        labelled: (N, K) bool.
        boxes: (N, 4) true boxes, x1 y1 x2 y2; a joint is right within `threshold` of the longer side.
        least_joints, least_side_px: people with fewer labelled joints or smaller boxes are not counted.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    counted = (labelled.sum(axis=1) >= least_joints) & (side > least_side_px)
    right = np.linalg.norm(found - true, axis=2) < threshold * side[:, None]
    asked = labelled & counted[:, None]

    def share(columns: Sequence[int]) -> float:
        total = asked[:, columns].sum()
        return float((right & asked)[:, columns].sum() / total) if total else float("nan")

    below = [i for i, joint in enumerate(skeleton.joints) if not any(part in joint for part in _HEAD)]
    by_joint = {joint: share([i]) for i, joint in enumerate(skeleton.joints)}
    return Pck(by_joint, share(below), int(counted.sum()))
