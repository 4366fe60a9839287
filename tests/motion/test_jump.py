"""Jumps and throws of a person made of points that obeys gravity."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.motion.events import Event
from pipeline.motion.jump import Movement, jump_events
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]
PIXELS_PER_METRE = 200.0
TRUNK = 105.0  # 0.53 metres, so that the person is 1.75 metres tall
GRAVITY = 9.81


def jumper(
    fps: float = 60,
    flight: float = 0.5,
    throw: bool = False,
    gravity: float = GRAVITY,
    starts: tuple[float, ...] = (2.0,),
) -> Movement:
    """A person who crouches at 1.5 s, leaves the ground at 2 s, and lands after `flight` seconds."""
    seconds = np.arange(0, 4, 1 / fps)
    rise = np.zeros(len(seconds))
    for start in starts:
        since = seconds - start
        airborne = (since > 0) & (since < flight)
        rise += np.where(airborne, PIXELS_PER_METRE * gravity * (flight * since - since**2) / 2, 0.0)
    crouch = 40 * np.exp(-((seconds - 1.5) ** 2) / 0.02)
    joints = np.zeros((len(seconds), 17, 2))
    for i, name in enumerate(SKELETON.joints):
        side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
        height = 100 if i < 5 else 130 if "shoulder" in name else 130 + TRUNK if "hip" in name else 300
        level = 400 if "ankle" in name else height
        joints[:, i] = np.column_stack([np.full(len(seconds), 300 + 20 * side), level - rise])
        if "ankle" not in name:
            joints[:, i, 1] += crouch
    wrist, elbow = SKELETON.joints.index("right_wrist"), np.full((len(seconds), 2), 90.0)
    if throw:
        push = np.clip((seconds - 2.1) / 0.2, 0, 1)
        joints[:, wrist, 1] = joints[:, 0, 1] + 20 - 120 * (3 * push**2 - 2 * push**3)
        elbow[:, 1] = 100 - 80 * (3 * push**2 - 2 * push**3)
    else:
        joints[:, wrist, 1] = joints[:, 0, 1] + 80
    centre = np.column_stack([np.full(len(seconds), 300.0), 230 + crouch - rise])
    return Movement(seconds, joints, centre, 2 * crouch, elbow)


def by_kind(events: list[Event]) -> dict[str, Event]:
    assert len({event.kind for event in events}) == len(events)
    return {event.kind: event for event in events}


@pytest.mark.parametrize(("fps", "flight"), [(60, 0.5), (30, 0.6), (120, 0.4)])
def test_a_jump(fps: float, flight: float) -> None:
    events = by_kind(jump_events(jumper(fps, flight), SKELETON))
    assert list(events) == ["deepest_knee", "take_off", "peak", "landing"]
    assert events["deepest_knee"].seconds == pytest.approx(1.5, abs=1 / fps)
    assert events["deepest_knee"].measured["knee_flexion"] == pytest.approx(80, abs=2)
    # Ankles have to rise by 2 % of the height of the body, 7 pixels, which takes the first and last hundredths.
    assert events["take_off"].seconds == pytest.approx(2.0, abs=0.03)
    assert events["landing"].seconds == pytest.approx(2.0 + flight, abs=0.03)
    peak = events["peak"]
    assert peak.seconds == pytest.approx(2.0 + flight / 2, abs=0.02)
    assert peak.measured["pixels_per_metre"] == pytest.approx(PIXELS_PER_METRE, rel=0.02)
    assert peak.measured["flight_seconds"] == pytest.approx(flight, abs=0.05)
    true_height = GRAVITY * flight**2 / 8
    assert peak.measured["height_metres"] == pytest.approx(true_height, rel=0.25)


def test_the_release_of_a_throw() -> None:
    movement = jumper(throw=True)
    release = by_kind(jump_events(movement, SKELETON))["release"]
    assert release.side == "right"
    assert release.seconds == pytest.approx(2.2, abs=0.03), "the wrist is fastest in the middle of the push"
    assert release.measured["elbow_flexion"] == pytest.approx(60, abs=12)


def test_a_throw_between_two_jumps_is_one_event() -> None:
    kinds = [event.kind for event in jump_events(jumper(flight=0.3, throw=True, starts=(2.0, 2.4)), SKELETON)]
    assert kinds.count("take_off") == 2
    assert kinds.count("release") == 1


def test_a_free_throw_needs_no_jump() -> None:
    movement = jumper(throw=True, gravity=0)
    (release,) = jump_events(movement, SKELETON)
    assert (release.kind, release.side) == ("release", "right")
    assert release.seconds == pytest.approx(2.2, abs=0.03)
    slow = movement._replace(seconds=movement.seconds * 4)  # as a stretched arm is lifted
    assert jump_events(slow, SKELETON) == []
    stiff = movement._replace(elbows=np.full(movement.elbows.shape, 20.0) - movement.seconds[:, None])
    assert jump_events(stiff, SKELETON) == []


def test_what_is_no_jump() -> None:
    assert jump_events(jumper(flight=0.05), SKELETON) == [], "too short"
    assert jump_events(jumper(gravity=0.7 * GRAVITY / 3), SKELETON) == [], "falls too slowly for a person of that size"
    still = jumper(gravity=0)
    assert jump_events(still, SKELETON) == []
    movement = jumper()
    cut = movement.seconds < 2.2
    assert jump_events(Movement(*(array[cut] for array in movement)), SKELETON) == [], "the landing is not seen"
    missing = (movement.seconds < 1.95) | (movement.seconds > 2.3)
    assert jump_events(Movement(*(array[missing] for array in movement)), SKELETON) == []
