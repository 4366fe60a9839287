"""Points of the body as weighted means of joints, so that the errors of joints can be carried on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.skeletons import Skeleton

Point = tuple[str, ...]  # the mean of these joints

MID_HIP: Point = ("left_hip", "right_hip")
MID_SHOULDER: Point = ("left_shoulder", "right_shoulder")
FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")


def weights(skeleton: Skeleton, point: Point) -> np.ndarray:
    """(K,) shares of the joints in a point; nan if the skeleton lacks one of them."""
    shares = np.zeros(len(skeleton))
    for joint in point:
        if joint not in skeleton.joints:
            return np.full(len(skeleton), np.nan)
        shares[skeleton.joints.index(joint)] += 1 / len(point)
    return shares


def position(joints: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(T, 2) places of a point; nan where one of its joints is.

    Args:
        joints: (T, K, 2).
        shares: (K,) of the joints.
    """
    if np.isnan(shares).any():
        return np.full((len(joints), 2), np.nan)
    used = shares != 0
    return np.einsum("k,tkd->td", shares[used], joints[:, used])


def place(joints: np.ndarray, skeleton: Skeleton, point: Point) -> np.ndarray:
    """(T, 2) places of a point of the body."""
    return position(joints, weights(skeleton, point))


def mean_std(std: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(T,) standard deviation of a point whose joints have independent errors (T, K); shares (K,) or (T, K)."""
    spread = np.where(shares != 0, shares**2 * std**2, 0.0)
    return np.sqrt(spread.sum(axis=1))


def trunk_length(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(T,) distance of the middles of shoulders and hips, pixels."""
    return np.linalg.norm(place(joints, skeleton, MID_SHOULDER) - place(joints, skeleton, MID_HIP), axis=1)


def first_point(skeleton: Skeleton, points: Sequence[Point]) -> Point | None:
    """The first of the points that the skeleton has."""
    return next((point for point in points if set(point) <= set(skeleton.joints)), None)
