"""People keep their identity: through crossings, gaps, other frame rates and any order of detections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.settings.tree import TrackingSettings
from pipeline.skeletons import SKELETONS
from pipeline.tracking.association import track_people
from pipeline.tracking.frames import FramePeople

SIGMAS = np.array(SKELETONS["coco17"].oks_sigmas)
# A standing person in a box of 1 x 1: joints at fixed places.
POSE = np.random.default_rng(0).uniform(0.1, 0.9, (17, 2))


def frame(
    seconds: float, *people: tuple[float, float] | None, height: float = 200.0, noise: float = 0.0
) -> FramePeople:
    """People with the upper left corners of their boxes; None where one is not detected."""
    corners = np.array([corner for corner in people if corner is not None]).reshape(-1, 2)
    size = np.array([height / 3, height])
    random = np.random.default_rng(int(seconds * 1000))
    keypoints = corners[:, None] + POSE * size + random.normal(0, noise, (len(corners), 17, 2)) if len(corners) else []
    boxes = np.concatenate([corners, corners + size], axis=1)
    scores = np.ones((len(corners), 17))
    return FramePeople(seconds, boxes, np.reshape(keypoints, (-1, 17, 2)), scores, np.ones(len(corners)))


def tracked(frames: list[FramePeople], **changed: object) -> list[list[int]]:
    return [ids.tolist() for ids in track_people(frames, SIGMAS, TrackingSettings.model_validate(changed))]


@pytest.mark.parametrize("kind", ["oks", "iou", "poseflow"])
@pytest.mark.parametrize("fps", [60, 30, 10])
def test_two_people_who_cross_keep_their_tracks(kind: str, fps: int) -> None:
    """At 1.2 body heights a second each, with a little noise; one hides the other while they meet."""
    frames, expected = [], []
    for t in np.arange(0, 4, 1 / fps):
        left, right = (100 + 240 * t, 100.0), (900 - 240 * t, 104.0)
        hidden = abs(left[0] - right[0]) < 40
        frames.append(frame(t, left, None if hidden else right, noise=2))
        expected.append([1] if hidden else [1, 2])
    assert tracked(frames, kind=kind) == expected


def test_a_person_who_is_seen_again_in_time_keeps_the_track() -> None:
    def walk(gap: float) -> list[list[int]]:
        times = [t for t in np.arange(0, 4, 0.04) if not 1 < t < 1 + gap]
        return tracked([frame(t, (100 + 100 * t, 50)) for t in times])

    assert {i for ids in walk(0.9) for i in ids} == {1}
    assert {i for ids in walk(1.2) for i in ids} == {1, 2}, "a track ends after a second"


def test_numbers_are_never_used_again_and_count_from_left_to_right() -> None:
    frames = [frame(t, (500, 50), (100, 50)) for t in np.arange(0, 1, 0.1)]
    frames += [frame(t, (100, 50)) for t in np.arange(3, 4, 0.1)]
    ids = tracked(frames)
    assert ids[0] == [2, 1]
    assert ids[-1] == [3]


def test_a_person_who_flickers_has_no_track() -> None:
    frames = [frame(t, (100, 50), (600, 50) if i == 5 else None) for i, t in enumerate(np.arange(0, 1, 0.04))]
    ids = tracked(frames)
    assert ids[5] == [1, 0]
    assert {i for j, numbers in enumerate(ids) if j != 5 for i in numbers} == {1}
    assert tracked(frames[:1]) == [[0]]


def test_people_with_low_scores_continue_tracks_and_start_none() -> None:
    """The first person is sure in some frames, the second never, and a third stands beside the first one's way."""
    frames = []
    for i, t in enumerate(np.arange(0, 2, 0.04)):
        people = frame(t, (100 + 100 * t, 50), (600, 50))
        people.box_scores[:] = [0.8 if i % 5 == 0 else 0.15, 0.2]
        frames.append(people)
    assert tracked(frames) == [[1, 0]] * 50
    sure_frames_alone = [ids[0] for ids in tracked([f for i, f in enumerate(frames) if i % 5 == 0])]
    assert sure_frames_alone == [1] * 10
    assert tracked(frames, sure=0.1) == [[1, 2]] * 50
    far = [*frames[:6], frame(0.24, (180, 50))]
    far[-1].box_scores[:] = 0.15
    assert tracked(far)[-1] == [0], "too far from where the track should be"


def test_weak_people_continue_tracks_and_neither_start_nor_confirm_them() -> None:
    """Whatever their scores are: the first person is weak for a while, the second always, the third all but once."""
    frames = []
    for i, t in enumerate(np.arange(0, 2, 0.04)):
        people = frame(t, (100 + 100 * t, 50), (500, 50), (700, 50))
        frames.append(people._replace(weak=np.array([10 <= i < 20, True, i != 5])))
    for kind in ("oks", "iou", "poseflow"):
        assert tracked(frames, kind=kind) == [[1, 0, 0]] * 50


def test_a_weak_copy_does_not_take_the_track_of_a_person() -> None:
    """Its joints are better than those of the person, and it is nearer to where the person is expected."""
    frames = []
    for t in np.arange(0, 2, 0.04):
        people = frame(t, (100, 50), (102, 50))
        people.keypoint_scores[0] = 0.4
        frames.append(people._replace(weak=np.array([False, True])))
    assert tracked(frames) == [[1, 0]] * 50


def test_empty_frames_and_videos() -> None:
    assert tracked([]) == []
    assert tracked([frame(0.0), frame(0.1)]) == [[], []]


def test_all_tracks_end_where_the_time_goes_back() -> None:
    frames = [frame(t, (100, 50)) for t in [*np.arange(0, 1, 0.1), *np.arange(0, 1, 0.1)]]
    assert [ids[0] for ids in tracked(frames)] == [1] * 10 + [2] * 10


def test_all_tracks_end_at_a_cut() -> None:
    frames = [frame(t, (100, 50)) for t in np.arange(0, 2, 0.1)]
    frames[10] = frames[10]._replace(first_of_scene=True)
    assert [ids[0] for ids in tracked(frames)] == [1] * 10 + [2] * 10


@pytest.mark.parametrize("changed", [{"kind": "oks"}, {"kind": "poseflow"}, {"reunite": 30}])
def test_no_kind_goes_on_where_the_time_goes_back(changed: dict) -> None:
    times = [*np.arange(0, 0.8, 0.04), *np.arange(0, 1, 0.04)]
    frames = [frame(t, *(() if i >= 20 and t < 0.4 else [(100, 50)])) for i, t in enumerate(times)]
    frames = [f._replace(looks=np.ones((len(f.boxes), 3))) for f in frames]
    ids = [ids[0] for ids in tracked(frames, **changed) if ids]
    assert ids == [1] * 20 + [2] * 15


def test_people_are_followed_however_far_apart_the_frames_are() -> None:
    """One frame a second, and one in ten: the memory is at least two of them."""
    for step in (1.001, 10.0):
        frames = [frame(i * step, (100 + i, 50)) for i in range(10)]
        assert {i for ids in tracked(frames) for i in ids} == {1}


def test_the_same_time_again_follows_nobody() -> None:
    frames = [frame(t, (100, 50)) for t in (0.0, 0.1, 0.1, 0.2, 0.3)]
    assert [ids[0] for ids in tracked(frames)] == [1, 1, 0, 1, 1]


def test_equal_boxes_are_told_apart_by_their_poses() -> None:
    frames = []
    for t in np.arange(0, 1, 0.1):
        people = frame(t, (100, 50), (100, 50))
        people.keypoints[1] = people.keypoints[1][::-1]
        frames.append(people)
    turned = [f.rows(np.array([1, 0])) for f in frames]
    for ids, others in zip(tracked(frames), tracked(turned), strict=True):
        assert ids == others[::-1]


def test_joints_that_are_not_seen_do_not_count() -> None:
    """Their places are arbitrary; without any common joint the boxes are compared."""
    frames = []
    for i, t in enumerate(np.arange(0, 1, 0.1)):
        people = frame(t, (100, 50))
        people.keypoint_scores[:, (slice(0, 8) if i % 2 else slice(8, 17))] = 0.1
        people.keypoints[people.keypoint_scores < 0.5] = 5000
        frames.append(people)
    assert {i for ids in tracked(frames) for i in ids} == {1}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_tracks_do_not_depend_on_the_order_of_the_people(seed: int) -> None:
    random = np.random.default_rng(seed)
    starts, speeds = random.uniform(0, 1500, (5, 2)), random.uniform(-300, 300, (5, 2))
    frames = []
    for t in np.arange(0, 2, 0.08):
        seen = [tuple(s + v * t) if random.random() < 0.9 else None for s, v in zip(starts, speeds, strict=True)]
        frames.append(frame(t, *seen, noise=3))
    expected = track_people(frames, SIGMAS, TrackingSettings())
    orders = [random.permutation(len(f.boxes)) for f in frames]
    shuffled = [f.rows(o) for f, o in zip(frames, orders, strict=True)]
    for ids, found, order in zip(expected, track_people(shuffled, SIGMAS, TrackingSettings()), orders, strict=True):
        np.testing.assert_array_equal(found, ids[order])
