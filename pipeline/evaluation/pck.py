"""The percentage of correct keypoints, found within a share of a length (Yang and Ramanan, TPAMI 2013).

The length is the longer side of the box, or the torso.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.skeletons import Skeleton

_TORSO = ("left_shoulder", "right_hip")
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


# Of the diagonal of a head's box: how long MPII counts a head segment (Andriluka et al., CVPR 2014).
_HEAD_SEGMENT = 0.6


def pck(
    found: np.ndarray,
    true: np.ndarray,
    labelled: np.ndarray,
    lengths: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.1,
    least_joints: int = 8,
    least_length_px: float = 32.0,
) -> Pck:
    """PCK of poses whose true person is known.

    Args:
        found, true: (N, K, 2) x y in pixels of one frame.
        labelled: (N, K) bool.
        lengths: (N,) pixels; a joint is right within `threshold` of it. NaN where a person has no such length.
        least_joints, least_length_px: people with fewer labelled joints or a shorter length are not counted.
    """
    counted = (labelled.sum(axis=1) >= least_joints) & (lengths > least_length_px)
    right = np.linalg.norm(found - true, axis=2) < threshold * lengths[:, None]
    asked = labelled & counted[:, None]

    def share(columns: Sequence[int]) -> float:
        total = asked[:, columns].sum()
        return float((right & asked)[:, columns].sum() / total) if total else float("nan")

    below = [i for i, joint in enumerate(skeleton.joints) if not any(part in joint for part in _HEAD)]
    by_joint = {joint: share([i]) for i, joint in enumerate(skeleton.joints)}
    return Pck(by_joint, share(below), int(counted.sum()))


def box_lengths(boxes: np.ndarray) -> np.ndarray:
    """(N,) the longer side of boxes (N, 4) x1 y1 x2 y2, pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def has_torso(skeleton: Skeleton) -> bool:
    return all(joint in skeleton.joints for joint in _TORSO)


def torso_lengths(true: np.ndarray, labelled: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(N,) from the left shoulder to the right hip, pixels (Sapp and Taskar, CVPR 2013); NaN where unlabelled."""
    shoulder, hip = (skeleton.joints.index(joint) for joint in _TORSO)
    length = np.linalg.norm(true[:, shoulder] - true[:, hip], axis=1)
    return np.where(labelled[:, shoulder] & labelled[:, hip], length, np.nan)
