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
_SIDES = ("left", "right")
_SHORT, _TALL = 0.8, 2.6  # metres: a flight in which a person seems to have another height is none
_STANDING = 1.5  # seconds on both sides in which the standing level is looked for
_CROUCH = 1.0  # seconds before the take-off in which the knees are deepest
_THROW = 0.7  # seconds on both sides of the peak in which a ball is released
# Of a throw without a jump: trunks a second of the wrist, and by how many degrees the elbow extends within seconds.
_FAST, _EXTENDED, _PUSH = 4.0, 40.0, 0.3


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
    thrown = [event.seconds for event in events if event.kind == "release"]
    for throw in _throws(movement, skeleton):
        if all(abs(throw.seconds - time) > _THROW for time in thrown):
            events.append(throw)
            thrown.append(throw.seconds)
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
    """The first maximum near the peak of a jump of the speed of the higher wrist above the head; see `_fastest`."""
    near = np.abs(movement.seconds - peak) <= _THROW
    wrists = [place(movement.joints, skeleton, (f"{side}_wrist",)) for side in _SIDES]
    arm = int(np.argmin([np.nanmin(np.where(near, wrist[:, 1], np.inf)) for wrist in wrists]))
    frame = next((i for i in _fastest(movement, arm, skeleton) if near[i]), None)
    return [] if frame is None else [_released(movement, arm, frame, skeleton)]


def _throws(movement: Movement, skeleton: Skeleton) -> Iterator[Event]:
    """Releases without a jump, such as free throws: the wrist is fast, and the elbow extends far."""
    if len(movement.seconds) < 3:
        return
    trunk = trunk_length(movement.joints, skeleton)
    for arm in range(len(_SIDES)):
        speed, elbow = _speed(movement, arm, skeleton), movement.elbows[:, arm]
        for i in _fastest(movement, arm, skeleton):
            around = elbow[np.abs(movement.seconds - movement.seconds[i]) <= _PUSH]
            if speed[i] > _FAST * trunk[i] and around.max() - around.min() > _EXTENDED:  # nan is neither
                yield _released(movement, arm, i, skeleton)


def _speed(movement: Movement, arm: int, skeleton: Skeleton) -> np.ndarray:
    """(T,) of the wrist of an arm, pixels a second."""
    wrist = place(movement.joints, skeleton, (f"{_SIDES[arm]}_wrist",))
    return np.linalg.norm(np.gradient(wrist, movement.seconds, axis=0), axis=1)


def _fastest(movement: Movement, arm: int, skeleton: Skeleton) -> Iterator[int]:
    """Frames with a local maximum of the wrist's speed above the head, while the elbow extends."""
    speed, wrist = _speed(movement, arm, skeleton), place(movement.joints, skeleton, (f"{_SIDES[arm]}_wrist",))
    head = place(movement.joints, skeleton, ("nose",))
    extending = np.gradient(movement.elbows[:, arm], movement.seconds) < 0
    for i in range(1, len(speed) - 1):
        is_top = speed[i] >= speed[i - 1] and speed[i] > speed[i + 1]
        if is_top and wrist[i, 1] < head[i, 1] and extending[i]:
            yield i


def _released(movement: Movement, arm: int, frame: int, skeleton: Skeleton) -> Event:
    seconds = movement.seconds
    time = peak_time(seconds, _speed(movement, arm, skeleton), frame)
    elbow, knee = (_at(time, seconds, values) for values in (movement.elbows[:, arm], movement.knees))
    return Event("release", time, _SIDES[arm], _known(elbow_flexion=elbow, knee_flexion=knee))


def _at(time: float, seconds: np.ndarray, values: np.ndarray) -> float:
    """A curve between frames; nan next to unknown values."""
    return float(np.interp(time, seconds, values))


def _known(**values: float) -> dict[str, float]:
    return {name: value for name, value in values.items() if not np.isnan(value)}
