"""Jumps and throws of a person, seen by a camera that does not move.

In flight the centre of mass falls freely: the parabola tells how many pixels a metre has, and the time its height. The
release of a ball is guessed from the wrist alone, since the ball is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.motion.events import LARGEST_STEP, Event
from pipeline.motion.gait import peak_time
from pipeline.motion.points import place, trunk_length
from pipeline.skeletons import Skeleton
from pipeline.tracking.smoothing import running_median

GRAVITY = 9.81  # m / s^2
_TRUNKS_PER_HEIGHT = 1 / 0.3
_LIFT = 0.02  # body heights: both ankles are above the level on which the person stands
_RISE = 0.05  # body heights that the centre of mass gains in a jump; runners rise less
_SHORTEST, _LONGEST = 0.1, 1.5  # seconds of flight
_LEAST_FRAMES = 4  # of a flight, for the parabola
_SHORT, _TALL = 0.8, 2.6  # metres: a flight in which a person seems to have another height is none
_STANDING = 1.5  # seconds on both sides in which the standing level is looked for
_CROUCH = 1.0  # seconds before the take-off in which the knees are deepest
_THROW = 0.7  # seconds on both sides of the peak in which a ball is released


class Movement(NamedTuple):
    """A person over time.

    Attributes:
        seconds: (T,) increasing.
        joints: (T, K, 2) smoothed, pixels; nan where unknown.
        mass_centres: (T, 2) pixels; nan where unknown.
        knees: (T,) mean flexion of the knees, degrees.
        elbows: (T, 2) flexion of the left and right elbow, degrees.
    """

    seconds: np.ndarray
    joints: np.ndarray
    mass_centres: np.ndarray
    knees: np.ndarray
    elbows: np.ndarray


def jump_events(movement: Movement, skeleton: Skeleton) -> list[Event]:
    """The deepest knee, take-off, peak and landing of each jump, and the release of a ball if an arm throws."""
    events: list[Event] = []
    for start, end, height in _flights(movement, skeleton):
        if jump := _jump(movement, start, end, height):
            release = _release(movement, jump[-2].seconds, skeleton)
            # Two jumps in short succession may have the same throw near them.
            events += [*jump, *(event for event in release if event not in events)]
    return events


def _flights(movement: Movement, skeleton: Skeleton) -> Iterator[tuple[int, int, float]]:
    """The first frame of each flight, the first frame after it, and the height of the person, pixels."""
    if not {"left_ankle", "right_ankle"} <= set(skeleton.joints):
        return
    seconds = movement.seconds
    height = trunk_length(movement.joints, skeleton) * _TRUNKS_PER_HEIGHT
    ankles = np.stack([place(movement.joints, skeleton, (f"{side}_ankle",))[:, 1] for side in ("left", "right")])
    lower = ankles.max(axis=0)  # y points down
    ground, standing, tall = (
        running_median(seconds, values, _STANDING) for values in (lower, movement.mass_centres[:, 1], height)
    )
    up = lower < ground - _LIFT * tall
    edges = np.flatnonzero(np.diff(np.concatenate([[False], up, [False]]).astype(int))).reshape(-1, 2)
    for start, end in edges:
        if start == 0 or end == len(seconds) or not _SHORTEST <= seconds[end] - seconds[start] <= _LONGEST:
            continue
        if np.diff(seconds[start - 1 : end + 1]).max() > LARGEST_STEP:
            continue
        rise = standing[start:end] - movement.mass_centres[start:end, 1]
        if not np.isnan(rise).any() and rise.max() > _RISE * tall[start]:
            yield int(start), int(end), float(tall[start])


def _jump(movement: Movement, start: int, end: int, height: float) -> list[Event]:
    """The events of a flight; none if the centre of mass does not fall as fast as a person of usual height would."""
    seconds, knees = movement.seconds, movement.knees
    take_off, landing = _middle(seconds, start), _middle(seconds, end)
    if end - start < _LEAST_FRAMES:
        return []
    fall, speed, _ = np.polyfit(seconds[start:end] - take_off, movement.mass_centres[start:end, 1], 2)
    metre = 2 * fall / GRAVITY
    if not _SHORT * metre <= height <= _TALL * metre:
        return []
    events = []
    crouch = np.flatnonzero((seconds >= take_off - _CROUCH) & (np.arange(len(seconds)) < start) & ~np.isnan(knees))
    if len(crouch):
        deepest = int(crouch[np.argmax(knees[crouch])])
        events.append(Event("deepest_knee", float(seconds[deepest]), None, {"knee_flexion": float(knees[deepest])}))
    flight = landing - take_off
    measured = {
        "flight_seconds": flight,
        "height_metres": GRAVITY * flight**2 / 8,
        "pixels_per_metre": metre,
        "rise_pixels": max(0.0, speed**2 / (4 * fall)),
    }
    peak = float(np.clip(take_off - speed / (2 * fall), take_off, landing))
    return [
        *events,
        Event("take_off", take_off, None, _known(knee_flexion=_at(take_off, seconds, knees))),
        Event("peak", peak, None, measured),
        Event("landing", landing),
    ]


def _middle(seconds: np.ndarray, place: int) -> float:
    """The middle between a frame and the one before: what changed did so in between."""
    return float(seconds[place - 1] + seconds[place]) / 2


def _release(movement: Movement, peak: float, skeleton: Skeleton) -> list[Event]:
    """The first maximum of the wrist's speed above the head, while the elbow extends."""
    seconds = movement.seconds
    wrists = [place(movement.joints, skeleton, (f"{side}_wrist",)) for side in ("left", "right")]
    head = place(movement.joints, skeleton, ("nose",))[:, 1]
    near = np.abs(seconds - peak) <= _THROW
    tops = [np.nanmin(np.where(near, wrist[:, 1], np.inf)) for wrist in wrists]
    arm = int(np.argmin(tops))
    wrist, elbow = wrists[arm], movement.elbows[:, arm]
    speed = np.linalg.norm(np.gradient(wrist, seconds, axis=0), axis=1)
    extending = np.gradient(elbow, seconds) < 0
    for i in range(1, len(seconds) - 1):
        above = near[i] and wrist[i, 1] < head[i] and extending[i]
        if above and speed[i] >= speed[i - 1] and speed[i] > speed[i + 1]:
            time = peak_time(seconds, speed, i)
            measured = _known(elbow_flexion=_at(time, seconds, elbow), knee_flexion=_at(time, seconds, movement.knees))
            return [Event("release", time, ("left", "right")[arm], measured)]
    return []


def _at(time: float, seconds: np.ndarray, values: np.ndarray) -> float:
    """A curve between frames; nan next to unknown values."""
    return float(np.interp(time, seconds, values))


def _known(**values: float) -> dict[str, float]:
    return {name: value for name, value in values.items() if not np.isnan(value)}
