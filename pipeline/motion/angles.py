"""Joint angles and segment angles with their standard errors.

Angles are between directions in the image, in degrees, anticlockwise as seen. Signs are those of the clinic: flexion is
positive, and extension 0. They are projections: where a limb points towards the camera they are too small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.motion.points import FACE, MID_HIP, MID_SHOULDER, Point, place, weights
from pipeline.skeletons import Skeleton

_LEAST_LENGTH = 1.0  # pixels


class Angle(NamedTuple):
    """The turn from one direction to another.

    Attributes:
        name: of its column.
        first: from a point to a point; or a fixed direction (x to the right, y up).
        second: from a point to a point.
        sign: +1 or -1, the direction of flexion of a person who faces right, for angles that are only meant if the
            person is seen from the side; 0 for the size of the turn.
        offset: added to the turn, degrees.
        lowest: values are from here up to 360 degrees more.
        possible: the range of people; outside of it a joint is misplaced, and the angle unknown.
        segment: an angle of one segment against the horizontal; it keeps its sign, and runs on beyond 360 degrees.
    """

    name: str
    first: tuple[Point, Point] | tuple[float, float]
    second: tuple[Point, Point]
    sign: int = 0
    offset: float = 0.0
    lowest: float = -180.0
    possible: tuple[float, float] = (-180.0, 360.0)
    segment: bool = False

    @property
    def sagittal(self) -> bool:
        return self.sign != 0


def _sides(side: str) -> list[Angle]:
    shoulder, elbow, wrist = ((f"{side}_{joint}",) for joint in ("shoulder", "elbow", "wrist"))
    hip, knee, ankle = ((f"{side}_{joint}",) for joint in ("hip", "knee", "ankle"))
    heel, toe = (f"{side}_heel",), (f"{side}_big_toe",)
    trunk_down = (MID_SHOULDER, MID_HIP)
    return [
        Angle(f"{side}_knee_flexion", (hip, knee), (knee, ankle), sign=-1, possible=(-25, 170)),
        Angle(f"{side}_hip_flexion", trunk_down, (hip, knee), sign=1, possible=(-60, 160)),
        Angle(f"{side}_ankle_dorsiflexion", (knee, ankle), (heel, toe), sign=1, offset=-90, possible=(-80, 60)),
        Angle(f"{side}_shoulder_flexion", trunk_down, (shoulder, elbow), sign=1, lowest=-90),
        Angle(f"{side}_elbow_flexion", (shoulder, elbow), (elbow, wrist)),
        *(
            Angle(f"{side}_{name}_angle", (1.0, 0.0), ends, segment=True)
            for name, ends in {
                "foot": (heel, toe),
                "shank": (ankle, knee),
                "thigh": (knee, hip),
                "upper_arm": (elbow, shoulder),
                "forearm": (wrist, elbow),
            }.items()
        ),
    ]


ANGLES = (
    *_sides("left"),
    *_sides("right"),
    Angle("trunk_lean", (0.0, 1.0), (MID_HIP, MID_SHOULDER), sign=-1),
    Angle("trunk_angle", (1.0, 0.0), (MID_HIP, MID_SHOULDER), segment=True),
    Angle("shoulders_angle", (1.0, 0.0), (("right_shoulder",), ("left_shoulder",)), segment=True),
    Angle("pelvis_angle", (1.0, 0.0), (("right_hip",), ("left_hip",)), segment=True),
    Angle("head_angle", (1.0, 0.0), (MID_SHOULDER, FACE), segment=True),
)


def measure(
    angle: Angle,
    joints: np.ndarray,
    std: np.ndarray,
    facing: np.ndarray,
    skeleton: Skeleton,
    over_time: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """An angle over time, and its standard error, both (T,) degrees; nan where joints or the facing are unknown.

    The error is that of the joints, to first order: a turn changes by 1/length of a direction for each pixel across it.

    Args:
        joints: (T, K, 2) x y, pixels, y down; nan where unknown.
        std: (T, K) standard deviation of each coordinate, pixels; nan where unknown.
        facing: (T,) 1 right, -1 left, nan unknown.
        over_time: the rows are one person, so that segment angles run on; else they are different people.
    """
    second, second_gradient = _direction(angle.second, joints, skeleton)
    first, first_gradient = (
        (np.tile(angle.first, (len(joints), 1)), np.zeros(joints.shape))
        if isinstance(angle.first[0], float)
        else _direction(angle.first, joints, skeleton)
    )
    cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    turn = np.degrees(np.arctan2(cross, (first * second).sum(axis=1)))
    spread = ((second_gradient - first_gradient) ** 2).sum(axis=2)  # (T, K) squared radians per squared pixel
    error = np.degrees(np.sqrt(np.where(spread > 0, spread * std**2, 0.0).sum(axis=1)))
    if angle.segment:
        value = _unwrap(turn) if over_time else turn
    elif angle.sagittal:
        value = (angle.sign * facing * turn + angle.offset - angle.lowest) % 360 + angle.lowest
    else:
        value = np.abs(turn)
    if not angle.segment:
        value = np.where((value >= angle.possible[0]) & (value <= angle.possible[1]), value, np.nan)
    return value, np.where(np.isnan(value), np.nan, error)


def _direction(ends: tuple[Point, Point], joints: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2) x right, y up, and by how much its angle changes with each joint (T, K, 2), radians per pixel."""
    vector = (place(joints, skeleton, ends[1]) - place(joints, skeleton, ends[0])) * [1, -1]
    vector[(vector**2).sum(axis=1) < _LEAST_LENGTH**2] = np.nan  # two joints in one place have no direction
    shares = np.nan_to_num(weights(skeleton, ends[1]) - weights(skeleton, ends[0]))
    across = np.column_stack([-vector[:, 1], vector[:, 0]]) / np.maximum((vector**2).sum(axis=1), 1e-12)[:, None]
    return vector, shares[None, :, None] * across[:, None]


def _unwrap(degrees: np.ndarray) -> np.ndarray:
    """Without jumps of 360 degrees between values that are known."""
    known = ~np.isnan(degrees)
    continuous = degrees.copy()
    continuous[known] = np.unwrap(degrees[known], period=360)
    return continuous
