"""Trajectories of tracked people: smoothed joints, short gaps filled, swaps put right."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.settings.tree import TrackingSettings
from pipeline.skeletons import SKELETONS
from pipeline.tracking import trajectories
from pipeline.tracking.trajectories import Observed, refine

SKELETON = SKELETONS["coco17"]
LEGS = [SKELETON.joints.index(f"{side}_{joint}") for joint in ("knee", "ankle") for side in ("left", "right")]


def walker(fps: float = 25, seconds: float = 3.0, noise: float = 1.0) -> tuple[Observed, np.ndarray]:
    """A person who walks to the right, and its true joints; the box is 100 x 200 pixels."""
    random = np.random.default_rng(0)
    times = np.arange(0, seconds, 1 / fps)
    left = 50 + 80 * times
    boxes = np.column_stack([left, np.full(len(times), 40.0), left + 100, np.full(len(times), 240.0)])
    pose = random.uniform(0.1, 0.9, (17, 2)) * (100, 200)
    truth = boxes[:, None, :2] + pose
    truth[:, LEGS, 0] += np.array([30, -30, 45, -45]) * np.sin(2 * np.pi * times)[:, None]
    joints = truth + random.normal(0, noise, truth.shape)
    return Observed(times, boxes, joints, np.ones((len(times), 17))), truth


def without(observed: Observed, frames: slice) -> Observed:
    boxes, keypoints, scores = (array.copy() for array in observed[1:])
    boxes[frames], keypoints[frames], scores[frames] = np.nan, np.nan, 0
    return Observed(observed.seconds, boxes, keypoints, scores)


def test_smoothed_joints_are_nearer_to_the_truth() -> None:
    observed, truth = walker(noise=3.0)
    found = refine(observed, SKELETON, TrackingSettings())
    raw = np.abs(observed.keypoints - truth).mean()
    assert np.abs(found.keypoints - truth).mean() < 0.7 * raw
    assert 0.5 < found.std.mean() < 3.0
    assert not found.filled.any()


@pytest.mark.parametrize("smooth", ["rts", "butterworth", "one_euro"])
def test_short_gaps_are_filled_and_long_ones_are_not(smooth: str) -> None:
    observed, truth = walker()
    short, long = slice(20, 24), slice(45, 52)  # 0.2 and 0.32 seconds between the frames around them
    gap = without(without(observed, short), long)
    found = refine(gap, SKELETON, TrackingSettings(smooth=smooth))
    np.testing.assert_array_equal(np.flatnonzero(found.filled), range(20, 24))
    np.testing.assert_allclose(found.boxes[short], observed.boxes[short], atol=0.01)
    assert np.abs(found.keypoints[short] - truth[short]).max() < (12 if smooth == "rts" else 30)
    assert np.isnan(found.keypoints[long]).all()
    if smooth == "rts":
        assert (found.std[22] > found.std[10]).all(), "what was not seen is less sure"
    else:
        assert np.isnan(found.std).all()


def test_without_smoothing_nothing_is_changed_or_filled() -> None:
    observed, _ = walker()
    gap = without(observed, slice(20, 23))
    found = refine(gap, SKELETON, TrackingSettings(smooth="none"))
    np.testing.assert_array_equal(found.keypoints, gap.keypoints)
    assert not found.filled.any()
    assert np.isnan(found.std).all()


def test_joints_that_are_not_seen_are_unknown_beyond_the_gap() -> None:
    observed, _ = walker()
    observed.scores[30:33, 9] = 0.1
    observed.scores[:, 10] = 0.0
    observed.keypoints[:, 10] = 9999
    found = refine(observed, SKELETON, TrackingSettings())
    assert not np.isnan(found.keypoints[30:33, 9]).any()
    assert np.isnan(found.keypoints[:, 10]).all()
    assert np.isnan(refine(observed, SKELETON, TrackingSettings(gap=0.1)).keypoints[31, 9]).all()


def test_swapped_legs_are_put_right_and_marked() -> None:
    observed, truth = walker()
    frames = slice(30, 33)  # legs are apart at 1.25 s
    observed.keypoints[frames] = observed.keypoints[frames][:, SKELETON.mirror]
    observed.keypoints[frames, :11] = truth[frames, :11]  # legs alone
    found = refine(observed, SKELETON, TrackingSettings())
    np.testing.assert_array_equal(np.flatnonzero(found.swapped[:, 1]), range(30, 33))
    assert not found.swapped[:, 0].any()
    assert np.abs(found.keypoints[frames] - truth[frames]).max() < 8


def test_results_do_not_depend_on_scale_and_place() -> None:
    observed, _ = walker()
    found = refine(observed, SKELETON, TrackingSettings())
    larger = Observed(observed.seconds, 3 * observed.boxes + 7, 3 * observed.keypoints + 7, observed.scores)
    scaled = refine(larger, SKELETON, TrackingSettings())
    np.testing.assert_allclose(scaled.keypoints, 3 * found.keypoints + 7, atol=0.01)
    np.testing.assert_allclose(scaled.std, 3 * found.std, rtol=1e-3)


def test_a_long_track_is_smoothed_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    observed, _ = walker(seconds=12)
    observed = without(without(observed, slice(99, 102)), slice(150, 180))  # a gap at a border, and a long one
    whole = refine(observed, SKELETON, TrackingSettings())
    monkeypatch.setattr(trajectories, "_WINDOW", 100)
    monkeypatch.setattr(trajectories, "_MARGIN", 40)
    found = refine(observed, SKELETON, TrackingSettings())
    np.testing.assert_array_equal(np.isnan(found.keypoints), np.isnan(whole.keypoints))
    # The variance is estimated in each window. A missing margin would show as a difference of a standard deviation.
    assert np.nanmax(np.abs(found.keypoints - whole.keypoints)) < 0.35 * np.nanmean(whole.std)
    np.testing.assert_allclose(found.std, whole.std, rtol=0.35)


def test_a_track_of_two_frames() -> None:
    observed, _ = walker()
    found = refine(Observed(*(array[[0, 9]] for array in observed)), SKELETON, TrackingSettings())
    np.testing.assert_allclose(found.keypoints, observed.keypoints[[0, 9]], atol=1.5)
