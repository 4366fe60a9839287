"""Left and right legs that change places for some frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.skeletons import SKELETONS
from pipeline.tracking.swaps import find_swaps, limb_pairs

PAIRS = [(0, 1), (2, 3)]  # knees and ankles
SCALE = 200.0


def walker(fps: float, seconds: float = 4.0, noise: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Knees and ankles of a person who walks on the spot, one stride a second: (T,), (T, 4, 2)."""
    times = np.arange(0, seconds, 1 / fps)
    swing = np.sin(2 * np.pi * times)
    joints = np.zeros((len(times), 4, 2))
    for joint, (side, width, height) in enumerate(((1, 30, 100), (-1, 30, 100), (1, 60, 180), (-1, 60, 180))):
        joints[:, joint] = np.column_stack([300 + side * width * swing, np.full(len(times), height)])
    return times, joints + np.random.default_rng(seed).normal(0, noise, joints.shape)


def swaps(times: np.ndarray, joints: np.ndarray) -> np.ndarray:
    count = len(times)
    return find_swaps(times, joints, np.full((count, 4), 9.0), np.full(count, SCALE), PAIRS)


def turned(joints: np.ndarray, frames: slice) -> np.ndarray:
    changed = joints.copy()
    changed[frames] = joints[frames][:, [1, 0, 3, 2]]
    return changed


@pytest.mark.parametrize("fps", [10, 25, 60])
def test_nothing_is_swapped_where_a_person_walks(fps: float) -> None:
    """Legs pass each other twice a second."""
    times, joints = walker(fps)
    assert not swaps(times, joints).any()


@pytest.mark.parametrize("fps", [15, 25, 60])
def test_a_short_swap_of_legs_that_are_apart_is_found(fps: float) -> None:
    times, joints = walker(fps)
    frames = slice(np.searchsorted(times, 2.18), np.searchsorted(times, 2.32))  # apart at 2.25
    found = swaps(times, turned(joints, frames))
    expected = np.zeros(len(times), bool)
    expected[frames] = True
    np.testing.assert_array_equal(found, expected)


def test_a_long_swap_stays() -> None:
    times, joints = walker(25)
    assert not swaps(times, turned(joints, slice(30, 60))).any()
    assert not swaps(times, turned(joints, slice(80, None))).any(), "nothing tells how it ends"


def test_joints_that_are_not_seen_tell_nothing() -> None:
    times, joints = walker(25)
    joints[20:30] = np.nan
    assert not swaps(times, joints).any()


def test_a_leg_that_is_never_seen_is_not_made_from_the_other() -> None:
    times, joints = walker(25)
    joints[:, [1, 3]] = np.nan
    joints[25, [0, 2]] += 60
    assert not swaps(times, joints).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 90))
def test_at_most_the_swapped_frames_are_marked(seed: int, start: int) -> None:
    """Where legs are close together a swap may stay unseen, but no other frame is ever changed for it."""
    times, joints = walker(25, seed=seed)
    frames = slice(start, start + 3)
    assert set(np.flatnonzero(swaps(times, turned(joints, frames)))) <= set(range(start - 1, start + 4))


def test_arms_and_legs_have_groups_of_their_own() -> None:
    skeleton = SKELETONS["halpe26"]
    arms, legs = ({skeleton.joints[a] for a, _ in pairs} for pairs in limb_pairs(skeleton))
    assert arms == {"left_shoulder", "left_elbow", "left_wrist"}
    assert legs == {"left_hip", "left_knee", "left_ankle", "left_big_toe", "left_small_toe", "left_heel"}
    assert limb_pairs(SKELETONS["hand21"]) == []
