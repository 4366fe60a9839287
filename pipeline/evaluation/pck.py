"""The percentage of correct keypoints, found within a share of a length (Yang and Ramanan, TPAMI 2013).

The length is the longer side of the box, the head segment (PCKh: Andriluka et al., CVPR 2014), or the torso (Sapp and
Taskar, CVPR 2013).
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
    """Correct joints, counted; those of groups of people add up with `+`.

    Attributes:
        names: (K,) of the joints.
        right, asked: (K,) of how many labelled joints how many are correct.
        people: persons that were counted.
    """

    names: tuple[str, ...]
    right: np.ndarray
    asked: np.ndarray
    people: int

    def __add__(self, other: Pck) -> Pck:
        return Pck(self.names, self.right + other.right, self.asked + other.asked, self.people + other.people)

    @property
    def joints(self) -> dict[str, float]:
        """Shares of correct joints by joint name; NaN where none is labelled."""
        return {name: self._share([i]) for i, name in enumerate(self.names)}

    @property
    def body(self) -> float:
        """Over all labelled joints below the head; NaN without any."""
        return self._share([i for i, name in enumerate(self.names) if not any(part in name for part in _HEAD)])

    def _share(self, joints: Sequence[int]) -> float:
        asked = int(self.asked[joints].sum())
        return int(self.right[joints].sum()) / asked if asked else float("nan")


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
    return Pck(skeleton.joints, (right & asked).sum(axis=0), asked.sum(axis=0), int(counted.sum()))


def box_lengths(boxes: np.ndarray) -> np.ndarray:
    """(N,) the longer side of boxes (N, 4) x1 y1 x2 y2, pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def has_torso(skeleton: Skeleton) -> bool:
    return all(joint in skeleton.joints for joint in _TORSO)


def torso_lengths(true: np.ndarray, labelled: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(N,) from the left shoulder to the right hip, pixels; NaN where unlabelled."""
    shoulder, hip = (skeleton.joints.index(joint) for joint in _TORSO)
    length = np.linalg.norm(true[:, shoulder] - true[:, hip], axis=1)
    return np.where(labelled[:, shoulder] & labelled[:, hip], length, np.nan)
