"""Percentage of correct keypoints: joints within a fraction of a reference length (Yang and Ramanan, TPAMI 2013).

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
    """Counts of correct joints; counts of groups of people add up with `+`.

    Attributes:
        names: (K,) of the joints.
        correct, labelled: (K,) number of correct joints, of the labelled ones.
        people: people that were counted.
    """

    names: tuple[str, ...]
    correct: np.ndarray
    labelled: np.ndarray
    people: int

    def __add__(self, other: Pck) -> Pck:
        return Pck(self.names, self.correct + other.correct, self.labelled + other.labelled, self.people + other.people)

    @property
    def joints(self) -> dict[str, float]:
        """Fraction of correct joints by joint name; NaN if none is labelled."""
        return {name: self._share([i]) for i, name in enumerate(self.names)}

    @property
    def body(self) -> float:
        """Over all labelled joints below the head; NaN without any."""
        return self._share([i for i, name in enumerate(self.names) if not any(part in name for part in _HEAD)])

    def _share(self, joints: Sequence[int]) -> float:
        labelled = int(self.labelled[joints].sum())
        return int(self.correct[joints].sum()) / labelled if labelled else float("nan")


def pck(
    detected: np.ndarray,
    true: np.ndarray,
    labelled: np.ndarray,
    lengths: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.1,
    min_joints: int = 8,
    min_length_px: float = 32.0,
) -> Pck:
    """PCK of poses whose ground truth is known.

    Args:
        detected, true: (N, K, 2) x y in pixels of the same frame.
        labelled: (N, K) bool.
        lengths: (N,) pixels; a joint is correct within `threshold` of it. NaN if a person has no such length.
        min_joints, min_length_px: people with fewer labelled joints or a shorter length are not counted.
    """
    counted = (labelled.sum(axis=1) >= min_joints) & (lengths > min_length_px)
    correct = np.linalg.norm(detected - true, axis=2) < threshold * lengths[:, None]
    considered = labelled & counted[:, None]
    return Pck(skeleton.joints, (correct & considered).sum(axis=0), considered.sum(axis=0), int(counted.sum()))


def has_torso(skeleton: Skeleton) -> bool:
    return all(joint in skeleton.joints for joint in _TORSO)


def torso_lengths(true: np.ndarray, labelled: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(N,) from the left shoulder to the right hip, pixels; NaN where unlabelled."""
    shoulder, hip = (skeleton.joints.index(joint) for joint in _TORSO)
    length = np.linalg.norm(true[:, shoulder] - true[:, hip], axis=1)
    return np.where(labelled[:, shoulder] & labelled[:, hip], length, np.nan)
