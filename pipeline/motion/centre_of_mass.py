"""The centre of mass from the segments of the body, after de Leva (Journal of Biomechanics 29, 1996).

Masses and centres are the means of women and men. Hands are placed at the wrists, feet without heel and toe at the
ankles, and the head in the middle of the face's joints that are seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.motion.points import FACE, MID_HIP, MID_SHOULDER, Point, first_point, mean_std, weights
from pipeline.skeletons import Skeleton

LEAST_MASS = 0.9  # share of the mass that has to be seen


class _Segment(NamedTuple):
    """Share of the body's mass, distance of its centre from the first point as a share of the length, and its ends."""

    mass: float
    centre: float
    proximal: Point
    distal: Point


def _segments(skeleton: Skeleton) -> list[_Segment]:
    segments = [_Segment(0.43015, 0.4046, MID_SHOULDER, MID_HIP)]
    for side in ("left", "right"):
        shoulder, elbow, wrist = ((f"{side}_{joint}",) for joint in ("shoulder", "elbow", "wrist"))
        hip, knee, ankle = ((f"{side}_{joint}",) for joint in ("hip", "knee", "ankle"))
        toe = first_point(skeleton, [(f"{side}_big_toe",), ankle]) or ankle
        heel = first_point(skeleton, [(f"{side}_heel",), ankle]) or ankle
        segments += [
            _Segment(0.0263, 0.5763, shoulder, elbow),
            _Segment(0.0150, 0.45665, elbow, wrist),
            _Segment(0.00585, 0.0, wrist, wrist),
            _Segment(0.1447, 0.38535, hip, knee),
            _Segment(0.0457, 0.43735, knee, ankle),
            _Segment(0.0133, 0.42145, heel, toe),
        ]
    return segments


_HEAD_MASS = 0.0681


class CentreOfMass(NamedTuple):
    """Attributes:
    positions: (T, 2) x y, pixels; nan where less than 0.9 of the mass was seen.
    std: (T,) standard deviation of each coordinate, pixels.
    mass: (T,) share of the mass whose joints were seen.
    """

    positions: np.ndarray
    std: np.ndarray
    mass: np.ndarray


def centre_of_mass(joints: np.ndarray, std: np.ndarray, skeleton: Skeleton) -> CentreOfMass:
    """The centre of mass of a person over time.

    Args:
        joints: (T, K, 2) x y, pixels; nan where unknown.
        std: (T, K) standard deviation of each coordinate, pixels; nan where unknown.
    """
    seen = ~np.isnan(joints[..., 0])
    shares = np.zeros(seen.shape)  # of each joint in the sum of the segments' moments
    mass = np.zeros(len(joints))
    for segment in _segments(skeleton):
        own = (1 - segment.centre) * weights(skeleton, segment.proximal)
        own = own + segment.centre * weights(skeleton, segment.distal)
        if np.isnan(own).any():
            continue
        present = seen[:, own != 0].all(axis=1)
        shares[present] += segment.mass * own
        mass += segment.mass * present
    face = [skeleton.joints.index(joint) for joint in FACE if joint in skeleton.joints]
    if face:
        count = seen[:, face].sum(axis=1)
        shares[:, face] += np.where(seen[:, face], _HEAD_MASS / np.maximum(count, 1)[:, None], 0.0)
        mass += _HEAD_MASS * (count > 0)
    with np.errstate(invalid="ignore"):
        shares /= mass[:, None]
    positions = np.einsum("tk,tkd->td", np.nan_to_num(shares), np.nan_to_num(joints))
    enough = mass >= LEAST_MASS
    return CentreOfMass(
        np.where(enough[:, None], positions, np.nan),
        np.where(enough, mean_std(std, np.nan_to_num(shares)), np.nan),
        mass,
    )
