import numpy as np
import pytest
from support.coco import SKELETON, detections, ground_truth, one_image, person

from pipeline.coco.columns import GroundTruth
from pipeline.evaluation.eval_images import EvalImages
from pipeline.evaluation.groups import Grouping, GroupResult, crowding, group_images, group_results, lines, match_groups
from pipeline.evaluation.matching import join


def grouped(images: EvalImages, groupings: tuple = ()) -> list[GroupResult]:
    return group_results(match_groups(images, SKELETON, groupings), groupings)


def of_sizes(*areas: float) -> GroundTruth:
    people = ground_truth(*(person(9000 * n) for n in range(len(areas))))
    return people._replace(areas=np.array(areas))


def test_a_group_counts_only_its_own_people() -> None:
    """The small person is detected, the large one is missed."""
    results = {r.label: r for r in grouped(one_image(of_sizes(20.0**2, 300.0**2), detections(person(0))))}
    assert results["to 32"][2:] == (1, pytest.approx(1))
    assert results["over 256"][2:] == (1, 0.0)
    assert results["to 64"][2:] == (0, -1.0)


def test_every_person_is_in_one_group_of_each_grouping() -> None:
    few = person(300)
    few[6:] = 0
    people = ground_truth(person(0), few, person(9000))
    boxes = np.array([[0, 0, 100, 100.0], [10, 0, 100, 100], [900, 0, 50, 60]])
    people = people._replace(boxes_xywh=boxes, areas=np.array([20.0**2, 60.0**2, 300.0**2]))
    results = grouped(one_image(people, detections(person(0), few, person(9000))))
    by_label = {(r.grouping, r.label): r.people for r in results if r.people}
    assert by_label == {
        ("size, pixels", "to 32"): 1,
        ("size, pixels", "to 64"): 1,
        ("size, pixels", "over 256"): 1,
        ("labelled joints", "6-10"): 1,
        ("labelled joints", "16 or more"): 2,
        ("people overlapped", "none"): 1,
        ("people overlapped", "1-2"): 2,
        ("people overlapped, labelled joints", "none, 16 or more"): 1,
        ("people overlapped, labelled joints", "1-2, 6-10"): 1,
        ("people overlapped, labelled joints", "1-2, 16 or more"): 1,
        ("crowding of the image", "to 0.1"): 3,
    }
    assert all(r.ap == pytest.approx(1) for r in results if r.people)
    assert lines(results)[1] == "AP by labelled joints (people): 6-10 1.000 (1), 16 or more 1.000 (2)"


def test_images_are_grouped_by_a_column() -> None:
    grouping, numbers = group_images("source", ["b", "a", None, "a", "b", "a"])
    assert grouping.labels == ("a", "b", "none")
    assert numbers.tolist() == [1, 0, 2, 0, 1, 0]
    images = one_image(ground_truth(person(0)), detections(person(0)), source=1)
    by_label = {r.label: r.people for r in grouped(images, (grouping,)) if r.grouping == "source"}
    assert by_label == {"a": 0, "b": 1, "none": 0}


def test_a_false_positive_counts_only_in_the_groups_of_its_own_image() -> None:
    """One image is perfect; the other has a false positive of higher score."""
    groupings = (Grouping("source", ("good", "bad")),)
    good = one_image(ground_truth(person(0)), detections(person(0), pose_scores=[0.5]), source=0)
    bad = one_image(ground_truth(person(9000)), detections(person(0), pose_scores=[0.9]), source=1)
    matches = join([match_groups(images, SKELETON, groupings) for images in (good, bad)])
    by_label = {(r.grouping, r.label): r.ap for r in group_results(matches, groupings)}
    assert by_label["source", "good"] == pytest.approx(1)
    assert by_label["source", "bad"] == 0
    assert by_label["labelled joints", "16 or more"] < 0.6


def test_rare_values_share_a_group() -> None:
    grouping, numbers = group_images("shard", [*range(30), 3])
    assert len(grouping.labels) == 20
    assert (grouping.labels[0], grouping.labels[-1]) == ("3", "11 others")
    assert (numbers == 19).sum() == 11


def test_crowding_counts_joints_of_others() -> None:
    """Two people with all joints in both boxes, and a single person: 17 / 17, 17 / 17 and 0."""
    joints = np.array([[10.0 * k, 5.0 * k, 2] for k in range(17)])
    people = ground_truth(joints, joints, joints + np.array([1000, 0, 0]))
    boxes = np.array([[0, 0, 200, 100.0], [0, 0, 200, 100], [1000, 0, 200, 100]])
    assert crowding(people._replace(boxes_xywh=boxes)) == pytest.approx(2 / 3)
    assert crowding(ground_truth(person(0))._replace(keypoints=np.zeros((1, 17, 3)))) == 0
