"""Frames in which left and right arms or legs of a track are swapped, found by the path of least cost (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.skeletons import Skeleton

_LIMBS = {"arms": ("shoulder", "elbow", "wrist", "hand"), "legs": ("hip", "knee", "ankle", "toe", "heel")}
_SPEED = 1.5  # usual speed of a joint, scales a second
_SWITCH = 4.0  # cost of a change, in units of half a squared standard deviation
_LARGEST = 12.5  # cost of one joint: five standard deviations, so that a stray joint alone decides nothing
_LONGEST = 0.3  # seconds: a longer swap may be a person who turned around


def limb_pairs(skeleton: Skeleton) -> list[list[tuple[int, int]]]:
    """The (left, right) joints of the arms, and of the legs; groups without pairs are left out."""
    groups = [
        [(a, b) for a, b in skeleton.mirror_pairs if any(part in skeleton.joints[a] for part in parts)]
        for parts in _LIMBS.values()
    ]
    return [group for group in groups if group]


def find_swaps(
    seconds: np.ndarray, joints: np.ndarray, variances: np.ndarray, scales: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Short swaps of a group of pairs: left and right change places, and change back within 0.3 seconds.

    Where left and right are close to each other, nothing can be said, and nothing is changed.

    Args:
        seconds: (T,) increasing.
        joints: (T, K, 2) pixels; nan where not seen.
        variances: (T, K) of each coordinate, pixels^2.
        scales: (T,) size of the person, pixels.
        pairs: left and right joints that change places together.

    Returns:
        (T,) bool, whether the pairs are swapped in a frame.
    """
    left, right = np.array(pairs).T
    sides = np.stack([joints[:, [*left, *right]], joints[:, [*right, *left]]])  # (2, T, J, 2): as given, swapped
    spread = np.stack([variances[:, [*left, *right]], variances[:, [*right, *left]]])
    moved = (_SPEED * scales[1:] * np.diff(seconds)) ** 2
    # A pair counts if both sides are seen in both frames: otherwise one of the states would be free of cost.
    seen = ~np.isnan(joints[:, left, 0] + joints[:, right, 0])
    known = np.tile(seen[1:] & seen[:-1], 2)
    cost = np.zeros((len(seconds) - 1, 2, 2))  # of each step, from a state to a state
    for before in (0, 1):
        for after in (0, 1):
            squared = ((sides[after, 1:] - sides[before, :-1]) ** 2).sum(axis=2)
            expected = spread[after, 1:] + spread[before, :-1] + moved[:, None]
            each = np.minimum(squared / expected / 2, _LARGEST)
            cost[:, before, after] = np.where(known, each, 0.0).sum(axis=1) + (_SWITCH if before != after else 0.0)
    return _short_runs(_least_path(cost), seconds)


def _least_path(cost: np.ndarray) -> np.ndarray:
    """(T,) states 0 or 1 with the least sum of costs (T - 1, 2, 2); the first state is 0."""
    total = np.array([0.0, np.inf])
    origins = np.zeros((len(cost), 2), int)
    for t, step in enumerate(cost):
        reached = total[:, None] + step
        origins[t] = reached.argmin(axis=0)  # of equal costs the state as given
        total = reached.min(axis=0)
    path = np.zeros(len(cost) + 1, int)
    path[-1] = total.argmin()
    for t in range(len(cost) - 1, -1, -1):
        path[t] = origins[t, path[t + 1]]
    return path


def _short_runs(path: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The runs of state 1 that begin and end within the longest time."""
    swapped = np.zeros(len(path), bool)
    edges = np.flatnonzero(np.diff(path)) + 1
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        if seconds[end] - seconds[start] <= _LONGEST:
            swapped[start:end] = True
    return swapped
