"""The trajectory of a tracked person: swapped sides put right, joints smoothed, short gaps filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.boxes import areas
from pipeline.settings.tree import TrackingSettings
from pipeline.skeletons import Skeleton
from pipeline.tracking.smoothing import butterworth, one_euro, robust_rts, running_median, true_runs
from pipeline.tracking.swaps import find_swaps, limb_pairs

_CONFIDENT = 0.2  # score from which a joint is a measurement
_LEAST_SCORE = 0.05  # of the score that divides a variance
# White noise in the third derivative, scales^2 / s^5. The likeliest value for people who walk and jump (the demo clip
# of Sports2D); for people who stand it is 10, but one that is too small cuts off the tops of fast movements.
_DENSITY = 1e3
_SCALE_WINDOW = 0.5  # seconds on both sides
_EURO_CUTOFF, _EURO_BETA = 6.0, 3.0  # Hz, and Hz for each scale a second
# Frames that are smoothed at a time, which bounds the memory of long tracks, and more of them on both sides: nothing
# farther away has a measurable influence.
_WINDOW, _MARGIN = 5000, 150


class Observed(NamedTuple):
    """A tracked person in the T frames from the first to the last in which it was seen.

    Attributes:
        seconds: (T,) increasing.
        boxes: (T, 4) xyxy, pixels; nan where the person was not seen.
        keypoints: (T, K, 2) x y, pixels; nan as above.
        scores: (T, K) 0 to 1; 0 as above.
    """

    seconds: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """A person over time. Joints that were not measured within a short gap are nan.

    Attributes:
        filled: (T,) bool, frames without the person in a gap that is short enough to be filled.
        boxes: (T, 4) xyxy, pixels; in filled frames on the line between the boxes around the gap.
        keypoints: (T, K, 2) x y, pixels.
        std: (T, K) standard deviation of each coordinate, pixels; nan where the filter does not state any.
        swapped: (T, G) bool, whether left and right of the group of joints were swapped, see `limb_pairs`.
    """

    filled: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    std: np.ndarray
    swapped: np.ndarray


def refine(observed: Observed, skeleton: Skeleton, settings: TrackingSettings) -> Trajectory:
    """The trajectory of a person, from what was observed of it."""
    seconds = observed.seconds
    seen = ~np.isnan(observed.boxes[:, 0])
    boxes = np.column_stack([np.interp(seconds, seconds[seen], side[seen]) for side in observed.boxes.T])
    filled = ~seen & (_gaps(seconds, seen) <= settings.gap) & (settings.smooth != "none")
    scales = running_median(seconds, np.sqrt(np.maximum(areas(boxes), 1.0)), _SCALE_WINDOW)
    measured = observed.scores > _CONFIDENT
    joints = np.where(measured[..., None], observed.keypoints, np.nan).astype(np.float64)
    sigmas = np.array(skeleton.oks_sigmas)
    variances = (scales[:, None] * sigmas) ** 2 / np.clip(observed.scores, _LEAST_SCORE, 1)
    swapped = np.zeros((len(seconds), len(limb_pairs(skeleton))), bool)
    for group, pairs in enumerate(limb_pairs(skeleton)):
        swapped[:, group] = find_swaps(seconds, joints, variances, scales, pairs)
        left, right = np.array(pairs).T
        turned = np.ix_(swapped[:, group], [*left, *right]), np.ix_(swapped[:, group], [*right, *left])
        joints[turned[0]], variances[turned[0]] = joints[turned[1]], variances[turned[1]]
    keypoints, std = _smooth(seconds, joints, variances, scales, settings)
    return Trajectory(filled, boxes, keypoints, std, swapped)


def _smooth(
    seconds: np.ndarray, joints: np.ndarray, variances: np.ndarray, scales: np.ndarray, settings: TrackingSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Filtered joints (T, K, 2), nan where nothing was measured nearby, and their standard deviation (T, K)."""
    nothing = np.full(joints.shape[:2], np.nan)
    if settings.smooth == "none":
        return joints, nothing
    if settings.smooth == "rts":
        values, std, used = _smooth_windows(seconds, joints, variances, _DENSITY * scales**2)
        unknown = _gaps_of_each(seconds, used) > settings.gap
    else:
        unknown = _gaps_of_each(seconds, ~np.isnan(joints[..., 0])) > settings.gap
        values, std = np.full(joints.shape, np.nan), nothing
        for joint in range(joints.shape[1]):
            for piece in true_runs(~unknown[:, joint]):
                known = ~np.isnan(joints[piece, joint, 0])
                times = seconds[piece]
                line = np.column_stack([np.interp(times, times[known], axis[known]) for axis in joints[piece, joint].T])
                if settings.smooth == "butterworth":
                    values[piece, joint] = butterworth(times, line, settings.cutoff)
                else:
                    scale = scales[piece].mean()
                    values[piece, joint] = one_euro(times, line / scale, _EURO_CUTOFF, _EURO_BETA) * scale
    return np.where(unknown[..., None], np.nan, values), np.where(unknown, np.nan, std)


def _smooth_windows(
    seconds: np.ndarray, joints: np.ndarray, variances: np.ndarray, density: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`robust_rts`, a window at a time: joints (T, K, 2), standard deviation (T, K), and whether a joint counts."""
    values, std, used = np.empty(joints.shape), np.empty(joints.shape[:2]), np.empty(joints.shape[:2], bool)
    for start in range(0, len(seconds), _WINDOW):
        read = slice(max(0, start - _MARGIN), start + _WINDOW + _MARGIN)
        smoothed, counted = robust_rts(seconds[read], joints[read], variances[read], density[read])
        kept = slice(start - read.start, start - read.start + _WINDOW)
        window = slice(start, start + _WINDOW)
        values[window], std[window], used[window] = smoothed.states[kept, ..., 0], smoothed.std[kept], counted[kept]
    return values, std, used


def _gaps(seconds: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(T,) time between the nearest frames with `seen` before and after; 0 at these, infinite before and after all."""
    places = np.flatnonzero(seen)
    if not len(places):
        return np.full(len(seconds), np.inf)
    after = np.searchsorted(places, np.arange(len(seconds)))
    times = np.concatenate([[-np.inf], seconds[places], [np.inf]])
    return np.where(seen, 0.0, times[after + 1] - times[after])


def _gaps_of_each(seconds: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`_gaps` of each column of (T, K)."""
    return np.column_stack([_gaps(seconds, column) for column in seen.T])
