"""Pose flows: paths of confident poses, without duplicates."""

from __future__ import annotations

import numpy as np
from tracking.test_association import SIGMAS, frame

from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.association import track_people
from pipeline.tracking.frames import FramePeople


def flows(frames: list[FramePeople], **changed: object) -> list[list[int]]:
    settings = TrackingSettings.model_validate({"kind": "poseflow", **changed})
    return [ids.tolist() for ids in track_people(frames, SIGMAS, settings)]


def test_a_second_skeleton_on_the_same_person_has_no_track() -> None:
    """A weaker copy a few pixels away for most of a second."""
    frames = []
    for i, t in enumerate(np.arange(0, 2, 0.04)):
        people = frame(t, (100 + 50 * t, 50), *([(108 + 50 * t, 54)] if 10 < i < 30 else []))
        if len(people.boxes) > 1:
            people.box_scores[1], people.keypoint_scores[1] = 0.5, 0.4
        frames.append(people)
    assert {i for ids in flows(frames) for i in ids} == {0, 1}
    assert all(ids[0] == 1 for ids in flows(frames))
    for kind in ("oks", "iou"):
        assert {i for ids in track_people(frames, SIGMAS, TrackingSettings(kind=kind)) for i in ids.tolist()} == {0, 1}


def test_the_path_of_the_most_confident_poses_is_taken() -> None:
    """Two poses of each frame are close to both of the frame before."""
    frames = []
    for t in np.arange(0, 1, 0.04):
        people = frame(t, (100, 50), (104, 50))
        people.keypoint_scores[0] = 0.3
        frames.append(people)
    assert flows(frames) == [[0, 1]] * 25


def test_pieces_are_joined_across_a_gap_by_the_speed_of_the_person() -> None:
    frames = [frame(t, *(() if 1 < t < 1.4 else [(100 + 200 * t, 50)])) for t in np.arange(0, 3, 0.04)]
    assert {i for ids in flows(frames) for i in ids} == {1}
    assert {i for ids in flows(frames, memory=0.3) for i in ids} == {1, 2}


def test_people_are_sure_if_their_mean_score_is() -> None:
    """All poses of a flow have its mean confidence."""
    frames = [frame(t, (100, 50)) for t in np.arange(0, 1, 0.04)]
    for people in frames:
        people.box_scores[:] = 0.2
    assert {i for ids in flows(frames) for i in ids} == {0}
    frames[5].box_scores[:] = 0.9
    assert {i for ids in flows(frames) for i in ids} == {0}
    for people in frames[5:10]:
        people.box_scores[:] = 0.9
    assert {i for ids in flows(frames) for i in ids} == {1}


def test_weak_people_do_not_make_a_flow_less_sure() -> None:
    frames = [frame(t, (100, 50)) for t in np.arange(0, 4, 0.04)]
    for i, people in enumerate(frames):
        people.box_scores[:] = 0.5 if i < 25 else 0.21
        frames[i] = people._replace(weak=np.array([i >= 25]))
    assert {found[0] for found in flows(frames)} == {1}


def test_cuts() -> None:
    frames = [frame(t, (100, 50)) for t in np.arange(0, 1, 0.04)]
    frames[12] = frames[12]._replace(first_of_scene=True)
    assert [ids[0] for ids in flows(frames)] == [1] * 12 + [2] * 13


def test_a_flow_ends_where_it_gains_little() -> None:
    """After two seconds a person leaves, and something in the background is taken for one."""
    frames = [frame(t, (100, 50)) for t in np.arange(0, 4, 0.04)]
    for people in frames[50:]:
        people.box_scores[:], people.keypoint_scores[:] = 0.31, 0.21
    ids = [found[0] for found in flows(frames)]
    assert set(ids[:48]) == {1}
    assert 1 not in ids[52:]
    for people in frames[50:60]:
        people.box_scores[:], people.keypoint_scores[:] = 0.9, 0.9
    assert set([found[0] for found in flows(frames)][:58]) == {1}
    for people in frames[64:]:  # for less than half a second
        people.box_scores[:], people.keypoint_scores[:] = 0.9, 0.9
    assert {found[0] for found in flows(frames)} == {1}


def test_of_two_flows_on_one_person_the_more_confident_keeps_its_poses() -> None:
    """Although the other one is longer, and so its sum is larger."""
    frames = []
    for i, t in enumerate(np.arange(0, 2, 0.04)):
        people = frame(t, (100, 50), *([(104, 54)] if 20 <= i < 32 else []))
        people.box_scores[:1], people.keypoint_scores[:1] = 0.6, 0.6
        frames.append(people)
    ids = flows(frames)
    assert ids[10] == [1]
    assert all(found == [0, 1] for found in ids[20:32])


def test_empty_frames() -> None:
    assert flows([]) == []
    assert flows([frame(0.0), frame(0.1)]) == [[], []]
