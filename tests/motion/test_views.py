"""From which side people are seen, and where they face."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.motion.views import find_views
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]


def person(yaw: float, x: float = 300) -> np.ndarray:
    """(17, 2) a standing person, turned by `yaw` degrees: 0 faces the camera, 90 the right of the image."""
    across, ahead = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    joints = np.zeros((17, 2))
    for i, name in enumerate(SKELETON.joints):
        side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
        width = 55 if "shoulder" in name else 40 if "hip" in name else 15
        height = 50 if i < 5 else 100 if "shoulder" in name else 250 if "hip" in name else 300
        joints[i] = [x + side * width * across + (60 if i == 0 else 0) * ahead, height]
    return joints


@pytest.mark.parametrize(
    ("yaw", "view", "facing"),
    [(0, "frontal", None), (30, "frontal", None), (60, "oblique", 1), (90, "sagittal", 1), (-90, "sagittal", -1),
     (-60, "oblique", -1), (180, "frontal", None), (120, "oblique", 1)],
)  # fmt: skip
def test_a_person_from_all_sides(yaw: float, view: str, facing: int | None) -> None:
    for seconds, joints in (
        (None, person(yaw)[None]),
        (np.arange(10) / 25, np.repeat(person(yaw)[None], 10, axis=0)),
    ):
        found = find_views(seconds, joints, SKELETON)
        assert set(found.views) == {view}
        assert found.facing[0] == facing if facing else np.isnan(found.facing[0])


def test_a_person_who_turns_around_faces_the_other_way_once() -> None:
    """From right to left, through the camera, in two seconds, with a nose that is often wrong."""
    random = np.random.default_rng(0)
    seconds = np.arange(0, 4, 0.04)
    yaws = np.clip(np.interp(seconds, [1, 3], [90, -90]), -90, 90)
    joints = np.stack([person(yaw) for yaw in yaws]) + random.normal(0, 2, (len(seconds), 17, 2))
    joints[10:90:9, 0, 0] += random.choice([-60, 60], 9)
    facing = find_views(seconds, joints, SKELETON).facing
    known = facing[~np.isnan(facing)]
    assert np.count_nonzero(np.diff(known)) == 1
    assert known[0] == 1
    assert known[-1] == -1
    assert np.isnan(facing[np.abs(yaws) < 30]).all(), "frontal"


def test_a_face_that_is_hardly_seen_does_not_turn_a_person_around() -> None:
    """From behind and a little from the left: the nose is now on one side and now on the other."""
    seconds = np.arange(0, 4, 0.04)
    joints = np.stack([person(120) for _ in seconds])
    joints[:, 0, 0] = 300 + 60 * np.interp(seconds, [0, 1, 2, 4], [0.3, 0.3, -0.5, -0.5])
    facing = find_views(seconds, joints, SKELETON).facing
    assert (facing == -1).all(), "all frames together"


def test_a_turn_that_was_not_seen_from_the_front() -> None:
    """In a fifth of a second, at ten frames a second: angles with a sign are unknown in between."""
    seconds = np.arange(0, 4, 0.1)
    joints = np.stack([person(90 if t < 2 else -90) for t in seconds])
    facing = find_views(seconds, joints, SKELETON).facing
    assert set(facing[seconds < 1.7]) == {1}
    assert set(facing[seconds > 2.3]) == {-1}
    ways = facing[~np.isnan(facing)]
    assert np.count_nonzero(np.diff(ways)) == 1
    places = np.flatnonzero(~np.isnan(facing))
    assert np.diff(places).max() > 1, "not from one frame to the next"


def test_the_direction_of_walking_helps_where_the_face_is_not_seen() -> None:
    seconds = np.arange(0, 2, 0.04)
    joints = np.stack([person(90, 300 - 250 * t) for t in seconds])
    joints[:, :5] = np.nan
    assert (find_views(seconds, joints, SKELETON).facing == -1).all()
    assert np.isnan(find_views(seconds, np.stack([joints[0]] * 50), SKELETON).facing).all()


def test_different_people_tell_nothing_about_each_other() -> None:
    found = find_views(None, np.stack([person(90), person(-90), person(0), np.full((17, 2), np.nan)]), SKELETON)
    assert found.views == ["sagittal", "sagittal", "frontal", None]
    np.testing.assert_array_equal(found.facing, [1, -1, np.nan, np.nan])
