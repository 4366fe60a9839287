"""Heel strikes and toe-offs of a person who walks or runs, seen from the side.

After Zeni et al. (Gait & Posture 27, 2008): a heel strikes where it is farthest ahead of the pelvis, and a toe leaves
the ground where it is farthest behind. Without feet in the skeleton, ankles stand for both.
"""

from __future__ import annotations

import numpy as np

from pipeline.motion.events import LARGEST_STEP, Event
from pipeline.motion.points import MID_HIP, first_point, place, trunk_length
from pipeline.skeletons import Skeleton

_LEAST_SWING = 0.25  # trunks between the foremost and the rearmost place, so that standing people do not step
_LEAST_STEP = 0.3  # seconds between two strikes of a foot
_LONGEST_STRIDE = 2.5  # seconds


def gait_events(seconds: np.ndarray, joints: np.ndarray, facing: np.ndarray, skeleton: Skeleton) -> list[Event]:
    """Heel strikes and toe-offs; a strike after a whole stride has its duration, cadence and share of stance.

    Only strikes and toe-offs that follow each other in turn are taken: two of a kind in a row are both left out, and so
    is one alone.

    Args:
        seconds: (T,) increasing.
        joints: (T, K, 2) smoothed, pixels; nan where unknown.
        facing: (T,) see `Views`.
    """
    trunk = trunk_length(joints, skeleton)
    hip = place(joints, skeleton, MID_HIP)[:, 0]
    events: list[Event] = []
    for side in ("left", "right"):
        ankle = (f"{side}_ankle",)
        if set(ankle) <= set(skeleton.joints):
            heel = place(joints, skeleton, first_point(skeleton, [(f"{side}_heel",), ankle]) or ankle)[:, 0]
            toe = place(joints, skeleton, first_point(skeleton, [(f"{side}_big_toe",), ankle]) or ankle)[:, 0]
            ahead, behind = facing * (heel - hip) / trunk, -facing * (toe - hip) / trunk
            for start, end in _known_runs(ahead + behind, seconds, facing):
                piece = slice(start, end)
                strikes = _peaks(seconds[piece], ahead[piece])
                events += _strides(side, strikes, _peaks(seconds[piece], behind[piece]))
    return events


def _known_runs(values: np.ndarray, seconds: np.ndarray, facing: np.ndarray) -> list[tuple[int, int]]:
    """First frame and the one after the last of what is known without a gap, of a person who does not turn around."""
    runs: list[list[int]] = []
    for i in np.flatnonzero(~np.isnan(values)):
        goes_on = runs and runs[-1][1] == i and facing[i] == facing[i - 1]
        if goes_on and 0 < seconds[i] - seconds[i - 1] <= LARGEST_STEP:
            runs[-1][1] += 1
        else:
            runs.append([int(i), int(i) + 1])
    return [(start, end) for start, end in runs]


def _peaks(seconds: np.ndarray, values: np.ndarray) -> list[float]:
    """Times of the maxima, between frames at the top of a parabola through three of them."""
    from scipy.signal import find_peaks  # imported here: runs without videos need not wait for it

    if len(seconds) < 3:
        return []
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    found, _ = find_peaks(values, prominence=_LEAST_SWING, distance=max(1, round(_LEAST_STEP / step)))
    return [peak_time(seconds, values, int(place)) for place in found]


def peak_time(seconds: np.ndarray, values: np.ndarray, place: int) -> float:
    """The time of the top of the parabola through a local maximum and its neighbours."""
    t = seconds[place - 1 : place + 2] - seconds[place]
    a, b, _ = np.polyfit(t, values[place - 1 : place + 2], 2)
    return float(seconds[place] + (np.clip(-b / (2 * a), t[0], t[2]) if a < 0 else 0.0))


def _strides(side: str, strikes: list[float], offs: list[float]) -> list[Event]:
    found = sorted([(time, "heel_strike") for time in strikes] + [(time, "toe_off") for time in offs])
    events: list[Event] = []
    last_strike: float | None = None  # since which all events were in turn
    last_off = np.nan
    for before, (time, kind), after in zip([None, *found], found, [*found[1:], None], strict=False):
        beside = [other for other in (before, after) if other and abs(other[0] - time) <= _LONGEST_STRIDE]
        if not beside or any(other_kind == kind for _, other_kind in beside):
            last_strike = None
            continue
        measured: dict[str, float] = {}
        if kind == "toe_off":
            last_off = time
        else:
            if last_strike is not None and time - last_strike <= _LONGEST_STRIDE:
                stride = time - last_strike
                measured = {
                    "stride_seconds": stride,
                    "steps_per_minute": 120 / stride,
                    "stance_share": (last_off - last_strike) / stride,
                }
            last_strike = time
        events.append(Event(kind, time, side, measured))
    return events
