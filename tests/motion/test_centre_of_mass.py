"""The centre of mass after de Leva."""

from __future__ import annotations

import numpy as np
import pytest
from support.paths import SHARED

from pipeline.motion.centre_of_mass import _HEAD_MASS, _segments, centre_of_mass
from pipeline.skeletons import SKELETONS

TABLES = SHARED / "clips" / "motion"
COCO, HALPE = SKELETONS["coco17"], SKELETONS["halpe26"]


def standing(skeleton, width: float = 40) -> np.ndarray:
    """(1, K, 2) a person who stands upright, arms down: mass by height alone."""
    heights = {
        "nose": 10, "eye": 8, "ear": 12, "shoulder": 30, "elbow": 50, "wrist": 70, "hip": 80, "knee": 120, "ankle": 160,
        "heel": 165, "toe": 170,
    }  # fmt: skip
    joints = np.full((1, len(skeleton), 2), 0.0)
    for i, name in enumerate(skeleton.joints):
        side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
        height = next((h for part, h in heights.items() if part in name), 0)
        joints[0, i] = [300 + side * width, height]
    return joints


def test_the_centre_of_a_standing_person() -> None:
    """By hand: sums of mass times height of each segment, with the means of de Leva's women and men."""
    found = centre_of_mass(standing(COCO), np.ones((1, 17)), COCO)
    head = 0.0681 * (10 + 8 + 8 + 12 + 12) / 5
    trunk = 0.43015 * (30 + 0.4046 * 50)
    arms = 2 * (0.0263 * (30 + 0.5763 * 20) + 0.0150 * (50 + 0.45665 * 20) + 0.00585 * 70)
    legs = 2 * (0.1447 * (80 + 0.38535 * 40) + 0.0457 * (120 + 0.43735 * 40) + 0.0133 * 160)
    assert found.mass[0] == pytest.approx(1, abs=2e-4)
    np.testing.assert_allclose(found.positions[0], [300, (head + trunk + arms + legs) / found.mass[0]], atol=1e-3)
    assert 0.55 < (170 - found.positions[0, 1]) / 170 < 0.62, "a little above the middle of the body"


@pytest.mark.skipif(not TABLES.is_dir(), reason="needs ../shared/clips")
def test_masses_and_centres_are_the_means_of_the_published_tables() -> None:
    rows = {}
    for sex in ("male", "female"):
        lines = (TABLES / f"BSP{sex}_ZdeLeva.txt").read_text().splitlines()[1:]
        rows[sex] = {line.split("\t")[0]: [float(v) for v in line.split("\t")[2:4]] for line in lines if line.strip()}
    means = {name: np.mean([rows["male"][name], rows["female"][name]], axis=0) for name in rows["male"]}
    names = ["Trunk 3", *["Upper arm", "Forearm", "Hand", "Thigh", "Shank", "Foot"] * 2]
    for name, segment in zip(names, _segments(HALPE), strict=True):
        assert segment.mass == pytest.approx(means[name][0], abs=1e-6), name
        if name != "Hand":  # stands at the wrist
            assert segment.centre == pytest.approx(means[name][1], abs=1e-6), name
    assert pytest.approx(means["Head"][0]) == _HEAD_MASS


def test_a_small_part_may_be_missing_and_a_large_one_may_not() -> None:
    joints = standing(COCO)
    joints[0, [COCO.joints.index("left_wrist"), COCO.joints.index("left_eye")]] = np.nan
    found = centre_of_mass(joints, np.ones((1, 17)), COCO)
    assert found.mass[0] == pytest.approx(1 - 0.0150 - 0.00585, abs=2e-4)
    assert found.positions[0, 0] < 300, "without the left forearm"
    joints[0, COCO.joints.index("left_hip")] = np.nan
    found = centre_of_mass(joints, np.ones((1, 17)), COCO)
    assert found.mass[0] < 0.5
    assert np.isnan(found.positions).all()
    assert np.isnan(found.std).all()


def test_the_standard_deviation_is_that_of_many_noisy_people() -> None:
    joints = np.repeat(standing(HALPE), 20_000, axis=0)
    std = np.full(joints.shape[:2], 3.0)
    expected = centre_of_mass(joints[:1], std[:1], HALPE)
    noisy = centre_of_mass(joints + np.random.default_rng(0).normal(0, 3.0, joints.shape), std, HALPE)
    assert expected.std[0] == pytest.approx(np.std(noisy.positions[:, 0]), rel=0.02)


def test_feet_matter_little() -> None:
    """The same person with and without heels and toes."""
    halpe, coco = (centre_of_mass(standing(s), np.ones((1, len(s))), s).positions[0] for s in (HALPE, COCO))
    assert np.abs(halpe - coco).max() < 0.005 * 170
