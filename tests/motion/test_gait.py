"""Heel strikes and toe-offs."""

from __future__ import annotations

import numpy as np
import pytest
from support.paths import SHARED

from pipeline.motion.angles import ANGLES, measure
from pipeline.motion.events import Event
from pipeline.motion.gait import gait_events
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["halpe26"]
WINTER = SHARED / "clips" / "motion" / "WinterTableA1.txt"


def walker(facing: int = 1, fps: float = 50, stride: float = 1.1, speed: float = 200) -> tuple[np.ndarray, np.ndarray]:
    """A person who walks for five strides and a bit: (T,), (T, 26, 2).

    The right heel strikes at 0.3 strides and the toe leaves at 0.9; the left side half a stride later.
    """
    seconds = np.arange(0, 5.3 * stride, 1 / fps)
    joints = np.zeros((len(seconds), 26, 2))
    hip = 100 + facing * speed * seconds
    for i, name in enumerate(SKELETON.joints):
        joints[:, i, 0] = hip
        joints[:, i, 1] = 100 if "shoulder" in name else 250
    for side, shift in (("right", 0.0), ("left", 0.5)):
        phase = (seconds / stride - 0.3 - shift) % 1
        # From the strike to the toe-off the foot goes back evenly, then forward.
        swing = np.where(phase < 0.6, 70 - 140 * phase / 0.6, -70 + 140 * (phase - 0.6) / 0.4)
        for joint, ahead in (("heel", 0), ("ankle", 5), ("big_toe", 25)):
            joints[:, SKELETON.joints.index(f"{side}_{joint}"), 0] = hip + facing * (swing + ahead)
    return seconds, joints


def of(events: list[Event], kind: str, side: str) -> list[float]:
    return [event.seconds for event in events if (event.kind, event.side) == (kind, side)]


@pytest.mark.parametrize("facing", [1, -1])
def test_strikes_and_toe_offs_of_a_walker(facing: int) -> None:
    seconds, joints = walker(facing)
    events = gait_events(seconds, joints, np.full(len(seconds), facing), SKELETON)
    strides = np.arange(5) * 1.1
    np.testing.assert_allclose(of(events, "heel_strike", "right"), 0.3 * 1.1 + strides, atol=0.021)
    np.testing.assert_allclose(of(events, "toe_off", "right"), 0.9 * 1.1 + strides, atol=0.021)
    np.testing.assert_allclose(of(events, "heel_strike", "left"), 0.8 * 1.1 + strides, atol=0.021)
    measured = [event.measured for event in events if event.kind == "heel_strike" and event.side == "right"]
    assert measured[0] == {}, "no whole stride before it"
    for values in measured[1:]:
        assert values["stride_seconds"] == pytest.approx(1.1, abs=0.03)
        assert values["steps_per_minute"] == pytest.approx(120 / 1.1, rel=0.03)
        assert values["stance_share"] == pytest.approx(0.6, abs=0.03)


def test_a_stride_with_a_gap_is_not_measured() -> None:
    seconds, joints = walker()
    joints[101:109] = np.nan  # with the toe-off between the second strike and the third, at 2.09 seconds
    events = gait_events(seconds, joints, np.ones(len(seconds)), SKELETON)
    measured = [bool(event.measured) for event in events if event.kind == "heel_strike" and event.side == "right"]
    assert len(measured) == 5
    assert measured == [False, True, False, True, True]
    kept = (seconds < 1.9) | (seconds > 2.3)  # frames that are not there at all
    found = gait_events(seconds[kept], joints[kept], np.ones(kept.sum()), SKELETON)
    assert not [event for event in found if 1.9 < event.seconds < 2.3]


def test_events_that_are_not_in_turn_are_left_out() -> None:
    """The toe is not seen to leave between the second strike and the third: which of them is wrong is not known."""
    seconds, joints = walker()
    toe, hip = (SKELETON.joints.index(f"right_{name}") for name in ("big_toe", "hip"))
    held = (seconds > 1.5) & (seconds < 2.45)
    joints[held, toe, 0] = joints[held, hip, 0] + 95  # as at the strikes
    events = gait_events(seconds, joints, np.ones(len(seconds)), SKELETON)
    np.testing.assert_allclose(of(events, "heel_strike", "right"), [0.33, 3.63, 4.73], atol=0.021)
    np.testing.assert_allclose(of(events, "toe_off", "right"), [0.99, 3.19, 4.29, 5.39], atol=0.021)
    measured = [event.seconds for event in events if event.side == "right" and event.measured]
    np.testing.assert_allclose(measured, [4.73], atol=0.021)
    end = np.searchsorted(seconds, 0.6)  # one strike alone
    assert of(gait_events(seconds[:end], joints[:end], np.ones(end), SKELETON), "heel_strike", "right") == []


def test_people_who_stand_or_face_the_camera_have_no_gait() -> None:
    seconds, joints = walker()
    assert gait_events(seconds, joints, np.full(len(seconds), np.nan), SKELETON) == []
    standing = np.repeat(joints[:1], len(seconds), axis=0) + np.random.default_rng(0).normal(0, 3, joints.shape)
    assert gait_events(seconds, standing, np.ones(len(seconds)), SKELETON) == []
    assert gait_events(seconds[:2], joints[:2], np.ones(2), SKELETON) == []


def test_a_person_who_turns_around_in_place_does_not_step() -> None:
    seconds, joints = walker()
    standing = np.repeat(joints[10:11], len(seconds), axis=0)  # one foot in front
    facing = np.where((seconds > 2) & (seconds < 3), -1.0, 1.0)
    assert gait_events(seconds, standing, facing, SKELETON) == []


def test_ankles_stand_for_feet_that_a_skeleton_lacks() -> None:
    seconds, joints = walker()
    coco = gait_events(seconds, joints[:, :17], np.ones(len(seconds)), SKELETONS["coco17"])
    feet = gait_events(seconds, joints, np.ones(len(seconds)), SKELETON)
    np.testing.assert_allclose(of(coco, "heel_strike", "left"), of(feet, "heel_strike", "left"), atol=1e-6)


@pytest.mark.skipif(not WINTER.exists(), reason="needs ../shared/clips")
def test_a_stride_of_winters_walker() -> None:
    """Table A.1 of Winter's Biomechanics and Motor Control: a stride of 69 frames; in the book the contacts are at 28
    and 97 and the toe-off at 70, of which this rule finds the contacts three frames early."""
    table = np.loadtxt(WINTER, skiprows=2)
    seconds, numbers = table[:, 1], table[:, 0]
    joints = np.zeros((len(table), 26, 2))
    places = {"hip": 4, "knee": 6, "ankle": 10, "heel": 12, "big_toe": 16}
    for name, column in places.items():
        for side in ("left", "right"):
            joints[:, SKELETON.joints.index(f"{side}_{name}")] = table[:, column : column + 2] * [1, -1]
    for side in ("left", "right"):
        joints[:, SKELETON.joints.index(f"{side}_shoulder")] = (table[:, 4:6] + [0, 50]) * [1, -1]
    events = gait_events(seconds, joints, np.ones(len(table)), SKELETON)
    frames = {
        kind: np.interp(of(events, kind, "right"), seconds, numbers).round() for kind in ("heel_strike", "toe_off")
    }
    assert frames["heel_strike"].tolist() == [25, 94]
    assert 70 in frames["toe_off"]
    (stride,) = [event.measured["stride_seconds"] for event in events if event.side == "right" and event.measured]
    assert stride == pytest.approx(0.987, abs=0.005)
    knee = next(angle for angle in ANGLES if angle.name == "right_knee_flexion")
    flexion, _ = measure(knee, joints, np.ones(joints.shape[:2]), np.ones(len(table)), SKELETON)
    assert np.abs(flexion).max() == pytest.approx(61.2, abs=0.1)
    assert np.abs(flexion).min() == pytest.approx(0.0, abs=0.2)
