import numpy as np
import pytest

from pipeline.boxes import long_sides
from pipeline.evaluation.pck import has_torso, pck, torso_lengths
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]


def test_shares_computed_by_hand() -> None:
    true = np.zeros((3, 17, 2)) + 50
    detected = true.copy()
    detected[0, 9] += [9.9, 0]  # the left wrist, just within a tenth of 100
    detected[1, 9] += [10.1, 0]  # just beyond a tenth
    detected[0, 0] += 500  # the nose is not below the head
    labelled = np.ones((3, 17), bool)
    labelled[1, 15] = False  # the left ankle
    boxes = np.array([[0, 0, 40, 100], [0, 0, 100, 40], [0, 0, 30, 30]], float)  # the third is too small
    result = pck(detected, true, labelled, long_sides(boxes), SKELETON)
    assert result.people == 2
    assert result.joints["left_wrist"] == 0.5
    assert result.joints["nose"] == 0.5
    assert result.joints["left_ankle"] == 1.0
    assert result.body == pytest.approx(22 / 23)


def test_people_with_few_labels_are_not_counted() -> None:
    labelled = np.zeros((1, 17), bool)
    labelled[0, :7] = True
    poses, boxes = np.zeros((1, 17, 2)), np.array([[0, 0, 90, 90.0]])
    result = pck(poses, poses, labelled, long_sides(boxes), SKELETON)
    assert result.people == 0
    assert np.isnan(result.body)
    assert pck(poses, poses, labelled, long_sides(boxes), SKELETON, min_joints=7).body == 1.0


def test_without_people_nothing_is_counted() -> None:
    result = pck(np.zeros((0, 17, 2)), np.zeros((0, 17, 2)), np.zeros((0, 17), bool), np.zeros(0), SKELETON)
    assert result.people == 0


def test_pck_of_the_torso() -> None:
    true = np.zeros((2, 17, 2))
    true[:, 12] = (30, 40)  # the right hip, 50 pixels from the left shoulder
    labelled = np.ones((2, 17), bool)
    labelled[1, 5] = False
    lengths = torso_lengths(true, labelled, SKELETON)
    assert lengths[0] == 50
    assert np.isnan(lengths[1])
    detected = true.copy()
    detected[0, 9] = (9.9, 0)
    detected[0, 10] = (10.1, 0)
    result = pck(detected, true, labelled, lengths, SKELETON, threshold=0.2)
    assert result.people == 1
    assert (result.joints["left_wrist"], result.joints["right_wrist"]) == (1.0, 0.0)
    assert has_torso(SKELETON)
    assert not has_torso(SKELETONS["hand21"])
