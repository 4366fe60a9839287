"""Joint and segment angles of figures whose angles are known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.motion.angles import ANGLES, measure
from pipeline.motion.views import find_views
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["halpe26"]
BY_NAME = {angle.name: angle for angle in ANGLES}
LEG, ARM, TRUNK, FOOT = 100.0, 60.0, 150.0, 40.0


def figure(
    facing: int = 1,
    trunk: float = 0,
    hip: float = 0,
    knee: float = 0,
    ankle: float = 0,
    shoulder: float = 0,
    elbow: float = 0,
    height: float = 0,
) -> np.ndarray:
    """(26, 2) joints, y down, of a person seen from the side: trunk lean and flexions in degrees, both sides alike.

    Made by going along the body: an angle of 0 points straight down, positive ones forward.
    """
    joints = np.full((26, 2), np.nan)

    def along(start: np.ndarray, degrees: float, length: float) -> np.ndarray:
        return start + length * np.array([facing * np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])

    def put(name: str, point: np.ndarray) -> None:
        for side in ("left", "right"):
            joints[SKELETON.joints.index(f"{side}_{name}")] = point

    mid_hip = np.array([300.0, 300.0 + height])
    down = -trunk  # of the trunk, from the shoulders to the hips: leaning forward, hips are behind
    mid_shoulder = along(mid_hip, 180 - trunk, TRUNK)
    put("hip", mid_hip)
    put("shoulder", mid_shoulder)
    knee_point = along(mid_hip, down + hip, LEG)
    ankle_point = along(knee_point, down + hip - knee, LEG)
    put("knee", knee_point)
    put("ankle", ankle_point)
    put("heel", ankle_point)
    put("big_toe", along(ankle_point, down + hip - knee + 90 + ankle, FOOT))
    elbow_point = along(mid_shoulder, down + shoulder, ARM)
    put("elbow", elbow_point)
    put("wrist", along(elbow_point, down + shoulder + elbow, ARM))
    joints[SKELETON.joints.index("nose")] = along(mid_shoulder, 180 - trunk, 50)
    for name in ("eye", "ear"):
        put(name, joints[0])
    return joints


def value(name: str, joints: np.ndarray, facing: float = 1, std: float = 1.0) -> tuple[float, float]:
    joints = joints[None]
    found, error = measure(BY_NAME[name], joints, np.full(joints.shape[:2], std), np.array([facing]), SKELETON)
    return float(found[0]), float(error[0])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, -1]),
    st.floats(-40, 80),
    st.floats(-25, 120),
    st.floats(-8, 150),
    st.floats(-45, 30),
    st.floats(-60, 175),
    st.floats(0, 150),
)
def test_the_angles_of_a_figure(
    facing: int, trunk: float, hip: float, knee: float, ankle: float, shoulder: float, elbow: float
) -> None:
    """To both sides alike: a mirrored clip gives the same flexions."""
    joints = figure(facing, trunk, hip, knee, ankle, shoulder, elbow)
    expected = {
        "trunk_lean": trunk,
        "hip_flexion": hip,
        "knee_flexion": knee,
        "ankle_dorsiflexion": ankle,
        "shoulder_flexion": shoulder,
        "elbow_flexion": elbow,
    }
    for name, angle in expected.items():
        for side in ("left_", "right_") if name != "trunk_lean" else ("",):
            assert value(side + name, joints, facing)[0] == pytest.approx(angle, abs=1e-6), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left_thigh_angle", 90), ("left_shank_angle", 90), ("left_foot_angle", 0), ("trunk_angle", 90),
        ("left_upper_arm_angle", 90), ("left_forearm_angle", 90), ("head_angle", 90),
    ],
)  # fmt: skip
def test_segments_of_a_person_who_stands_upright(name: str, expected: float) -> None:
    assert value(name, figure())[0] == pytest.approx(expected)


def test_shoulders_and_pelvis_of_a_person_who_faces_the_camera() -> None:
    joints = figure()
    for name in ("shoulder", "hip"):
        left, right = (SKELETON.joints.index(f"{side}_{name}") for side in ("left", "right"))
        joints[left] += [40, -40]  # on the right of the image, and higher
        joints[right] -= [40, -40]
    assert value("shoulders_angle", joints)[0] == pytest.approx(45)
    assert value("pelvis_angle", joints)[0] == pytest.approx(45)


@pytest.mark.parametrize(
    "name", [angle.name for angle in ANGLES if not angle.name.startswith(("right", "shoulders", "p"))]
)
def test_the_standard_error_is_that_of_many_noisy_figures(name: str) -> None:
    """Monte Carlo: by how much the angle scatters when each joint scatters by two pixels."""
    joints = figure(1, 10, 30, 40, 5, 35, 25)
    random = np.random.default_rng(0)
    many = joints + random.normal(0, 2.0, (20_000, *joints.shape))
    found, _ = measure(BY_NAME[name], many, np.full(many.shape[:2], 2.0), np.ones(len(many)), SKELETON, over_time=False)
    assert value(name, joints, std=2.0)[1] == pytest.approx(np.std(found), rel=0.03)


def test_the_error_of_a_straight_and_of_a_bent_knee() -> None:
    """1.40 degrees for each percent of the length of thigh and shank near straight, 1.15 at a right angle."""
    assert value("left_knee_flexion", figure(knee=10), std=1.0)[1] == pytest.approx(1.40, abs=0.01)
    assert value("left_knee_flexion", figure(knee=90), std=1.0)[1] == pytest.approx(1.15, abs=0.01)


def test_angles_without_their_joints_or_their_facing_are_unknown() -> None:
    joints = figure()
    joints[SKELETON.joints.index("left_ankle")] = np.nan
    assert np.isnan(value("left_knee_flexion", joints)).all()
    assert value("right_knee_flexion", joints)[0] == pytest.approx(0)
    assert np.isnan(value("right_knee_flexion", joints, facing=np.nan)).all()
    assert value("right_elbow_flexion", joints, facing=np.nan)[0] == pytest.approx(0)
    coco = SKELETONS["coco17"]
    found, error = measure(BY_NAME["left_ankle_dorsiflexion"], joints[None, :17], np.ones((1, 17)), np.ones(1), coco)
    assert np.isnan([found, error]).all()


def test_two_joints_in_one_place_have_no_direction() -> None:
    joints = figure()
    joints[SKELETON.joints.index("left_wrist")] = joints[SKELETON.joints.index("left_elbow")]
    assert np.isnan(value("left_elbow_flexion", joints)).all()
    assert np.isnan(value("left_forearm_angle", joints)).all()


def test_angles_that_nobody_has_are_unknown() -> None:
    """A knee that bends forward by 70 degrees is a misplaced ankle."""
    joints = figure(knee=-70)
    assert np.isnan(value("left_knee_flexion", joints)).all()
    assert value("left_shank_angle", joints)[0] == pytest.approx(160), "segments have no such limits"


def test_angles_do_not_jump_when_a_person_turns() -> None:
    """From right to left through the camera in two seconds, with bent joints; the truth is a figure in space."""
    seconds = np.arange(0, 4, 0.04)
    yaws = np.radians(np.interp(seconds, [1, 3], [90, -90]))  # 90 faces the right of the image
    side_view = figure(1, trunk=10, hip=30, knee=40, shoulder=30, elbow=50)
    depth = np.zeros(26)
    for i, joint in enumerate(SKELETON.joints):
        width = 55 if joint.endswith(("shoulder", "elbow", "wrist")) else 40
        depth[i] = width if joint.startswith("left") else -width if joint.startswith("right") else 0
    x = (side_view[:, 0] - 300) * np.sin(yaws)[:, None] + depth * np.cos(yaws)[:, None]
    joints = np.stack([300 + x, np.broadcast_to(side_view[:, 1], x.shape)], axis=2)
    facing = find_views(seconds, joints, SKELETON).facing
    assert np.isnan(facing).any(), "frontal"
    assert {1, -1} < set(facing.tolist())
    for name in ("knee_flexion", "hip_flexion", "shoulder_flexion", "elbow_flexion"):
        angles, _ = measure(BY_NAME[f"left_{name}"], joints, np.ones(joints.shape[:2]), facing, SKELETON)
        steps = np.abs(np.diff(angles))
        assert np.nanmax(steps) < 20, name
        assert angles[0] == pytest.approx(angles[-1], abs=1e-6)


def test_segment_angles_run_on_over_time() -> None:
    """A full turn, with a frame in which nothing was seen."""
    turns = np.arange(0, 721, 30.0)
    joints = np.stack([figure(-1, trunk=turn) for turn in turns])
    joints[5] = np.nan
    found, _ = measure(BY_NAME["trunk_angle"], joints, np.ones(joints.shape[:2]), np.ones(len(turns)), SKELETON)
    np.testing.assert_allclose(found[~np.isnan(found)], np.delete(90 + turns, 5))
