"""From which side a person is seen, and where it faces."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipeline.motion.points import MID_HIP, MID_SHOULDER, first_point, place, trunk_length
from pipeline.skeletons import Skeleton
from pipeline.tracking.smoothing import running_median, true_runs

SAGITTAL, OBLIQUE, FRONTAL = "sagittal", "oblique", "frontal"
# Width of the shoulders in the image, in lengths of the trunk: 0.7 to 0.8 from the front, so that these are about 20
# and 45 degrees away from the side.
_OBLIQUE_WIDTH, _FRONTAL_WIDTH = 0.25, 0.5
_HALF_WINDOW = 0.25  # seconds
_NOSE_AHEAD = 0.25  # trunks from the middle of the shoulders, from the side
_WALKING = 1.0  # trunks a second, about 0.3 body heights a second
_SURE, _STRONG = 0.25, 0.6  # of a score from -1 to 1
_LEAST_TURN = 0.5  # seconds that a person must face the other way for a turn that was not seen from the front


class Views(NamedTuple):
    """Attributes:
    views: (T,) sagittal, oblique, frontal, or None where shoulders or hips are unknown.
    facing: (T,) 1 right, -1 left, nan in frontal views and where it is unknown.
    """

    views: list[str | None]
    facing: np.ndarray


def find_views(seconds: np.ndarray | None, joints: np.ndarray, skeleton: Skeleton) -> Views:
    """Views of a person over time: medians over half a second.

    Feet decide where it faces; without feet the nose, and the direction in which it walks. A person who turns is seen
    from the front or from behind in between: without that, it faces one way, by all frames together, unless both ways
    are strong for a while. Then nothing is said of the frames between these.

    Args:
        seconds: (T,) increasing; None if the rows are different people.
        joints: (T, K, 2) x y, pixels; nan where unknown.
    """
    trunk = np.maximum(trunk_length(joints, skeleton), 1e-6)
    left, right = (place(joints, skeleton, (f"{side}_shoulder",)) for side in ("left", "right"))
    width = np.abs(left[:, 0] - right[:, 0]) / trunk
    scores = _facing_scores(seconds, joints, trunk, skeleton)
    if seconds is not None:
        width, scores = (running_median(seconds, values, _HALF_WINDOW) for values in (width, scores))
    views = [
        None if np.isnan(w) else SAGITTAL if w < _OBLIQUE_WIDTH else OBLIQUE if w < _FRONTAL_WIDTH else FRONTAL
        for w in width
    ]
    from_side = np.array([view in (SAGITTAL, OBLIQUE) for view in views], bool)
    facing = np.where(np.abs(scores) > _SURE, np.sign(scores), np.nan)
    if seconds is not None:
        for piece in true_runs(from_side):
            facing[piece] = _facing(seconds[piece], scores[piece])
    return Views(views, np.where(from_side, facing, np.nan))


def _facing(seconds: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(T,) where a person faces who is not seen from the front in between: 1, -1, or nan where it turns or is unknown.

    Args:
        scores: (T,) see `_facing_scores`.
    """
    ways: list[tuple[float, int, int]] = []  # a strong way, and the first and last frame in a row with it
    for i in np.flatnonzero(np.abs(scores) > _STRONG):
        way = float(np.sign(scores[i]))
        if ways and ways[-1][0] == way:
            ways[-1] = (way, ways[-1][1], int(i))
        else:
            ways.append((way, int(i), int(i)))
    ways = [(way, i, j) for way, i, j in ways if seconds[j] - seconds[i] >= _LEAST_TURN]
    turns = [(i, j) for i, j in pairwise(ways) if i[0] != j[0]]
    if not turns:
        total = np.nansum(np.where(np.abs(scores) > _SURE, scores, 0.0))
        return np.full(len(scores), np.sign(total) if total else np.nan)
    facing = np.full(len(scores), ways[-1][0])
    for (way, _, last), (_, first, _) in reversed(turns):
        facing[:first] = way
        facing[last : first + 1] = np.nan
    return facing


def _facing_scores(seconds: np.ndarray | None, joints: np.ndarray, trunk: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(T,) from -1, left, to 1, right; nan where nothing tells."""
    feet = []
    for side in ("left", "right"):
        if first_point(skeleton, [(f"{side}_big_toe", f"{side}_heel")]):
            toe, heel = (place(joints, skeleton, (f"{side}_{end}",)) for end in ("big_toe", "heel"))
            feet.append((toe - heel)[:, 0] / (_NOSE_AHEAD * trunk))
    nose = (place(joints, skeleton, ("nose",)) - place(joints, skeleton, MID_SHOULDER))[:, 0] / (_NOSE_AHEAD * trunk)
    walking = by_feet = np.full(len(joints), np.nan)
    if seconds is not None and len(seconds) > 1:
        speed = np.gradient(place(joints, skeleton, MID_HIP)[:, 0], seconds) / trunk
        walking = np.where(np.abs(speed) > _WALKING, np.sign(speed), np.nan)
    if feet:
        by_feet = _mean(np.clip(feet, -1, 1))
    return np.where(np.isnan(by_feet), _mean(np.stack([np.clip(nose, -1, 1), walking])), by_feet)


def _mean(values: np.ndarray) -> np.ndarray:
    """Means of the columns without nan; nan for columns of nan alone."""
    known = ~np.isnan(values)
    return np.where(known.any(axis=0), np.nansum(values, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
