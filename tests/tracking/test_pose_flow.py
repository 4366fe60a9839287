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


def test_people_who_are_never_sure_and_cuts() -> None:
    frames = [frame(t, (100, 50)) for t in np.arange(0, 1, 0.04)]
    for people in frames:
        people.box_scores[:] = 0.2
    assert {i for ids in flows(frames) for i in ids} == {0}
    frames[5].box_scores[:] = 0.9
    assert {i for ids in flows(frames) for i in ids} == {1}
    frames[12] = frames[12]._replace(first_of_scene=True)
    frames[20].box_scores[:] = 0.9
    assert [ids[0] for ids in flows(frames)] == [1] * 12 + [2] * 13


def test_empty_frames() -> None:
    assert flows([]) == []
    assert flows([frame(0.0), frame(0.1)]) == [[], []]
