"""The kinds of error on hand-made cases, and the AP after repairs."""

import numpy as np
import pytest
from support.coco import (
    AREA,
    SKELETON,
    detections,
    eval_images_of,
    ground_truth,
    made_up,
    one_image,
    person,
)

from pipeline.coco.columns import Detections, GroundTruth
from pipeline.evaluation import errors
from pipeline.evaluation.errors import ERRORS, JOINT_ERRORS, ErrorAnalysis, analyse, count_errors, diagnose
from pipeline.evaluation.eval_images import EvalImage
from pipeline.evaluation.matching import join

SIGMAS = np.array(SKELETON.oks_sigmas)
LEFT_WRIST, RIGHT_WRIST, NOSE = 9, 10, 0


def analysis_of(people: GroundTruth, poses: Detections) -> ErrorAnalysis:
    return analyse(count_errors(one_image(people, poses), SKELETON))


def at_similarity(joint: int, similarity: float) -> float:
    """The distance in pixels at which a joint has that similarity."""
    return float(np.sqrt(-np.log(similarity) * 2 * AREA) * 2 * SIGMAS[joint])


def error_of(pose: np.ndarray, *people: np.ndarray, joint: int = LEFT_WRIST) -> str:
    number = diagnose(EvalImage(ground_truth(*people), detections(pose)), SKELETON).errors[0, joint]
    return "good" if number == -1 else "unlabelled" if number == -2 else JOINT_ERRORS[number]


def moved(joint: int, to: tuple[float, float] | np.ndarray) -> np.ndarray:
    pose = person(0)
    pose[joint, :2] = to
    return pose


@pytest.mark.parametrize(
    ("similarity", "kind"), [(1.0, "good"), (0.86, "good"), (0.84, "jitter"), (0.51, "jitter"), (0.49, "miss")]
)
def test_near_joints_are_good_or_jitter(similarity: float, kind: str) -> None:
    place = person(0)[LEFT_WRIST, :2] - [at_similarity(LEFT_WRIST, similarity), 0]
    assert error_of(moved(LEFT_WRIST, place), person(0)) == kind


def test_a_joint_at_its_mirror_joint_is_an_inversion() -> None:
    assert error_of(moved(LEFT_WRIST, person(0)[RIGHT_WRIST, :2]), person(0)) == "inversion"
    assert error_of(moved(NOSE, person(0)[5, :2]), person(0), joint=NOSE) == "miss"  # the nose has no mirror joint


def test_a_joint_of_another_person_is_a_swap() -> None:
    other = person(2000)
    for joint in (LEFT_WRIST, RIGHT_WRIST):
        assert error_of(moved(LEFT_WRIST, other[joint, :2]), person(0), other) == "swap"
    assert error_of(moved(LEFT_WRIST, other[NOSE, :2]), person(0), other) == "miss"


def test_an_unlabelled_joint_is_no_error() -> None:
    truth = person(0)
    truth[LEFT_WRIST] = 0
    assert error_of(moved(LEFT_WRIST, (5000, 5000)), truth) == "unlabelled"


def test_false_positives_and_missed_people_are_counted() -> None:
    false_positive = person(0)
    false_positive[:, :2] += 50_000
    analysis = analysis_of(ground_truth(person(0), person(9000)), detections(person(0), false_positive))
    assert (analysis.background, analysis.missed) == (1, 1)
    assert analysis.shares["good"] == 1
    assert analysis.alone["missed"] == pytest.approx(1)
    assert analysis.alone["background"] == pytest.approx(analysis.ap)
    assert analysis.pck["a tenth of the box"].body == 0.5  # one of two people
    assert analysis.pck["a fifth of the torso"].people == 2
    assert analysis.pck["half the head segment"].joints["nose"] == 0.5
    columns = {name: column.tolist() for name, column in analysis.images.items()}
    assert (columns["image_id"], columns["annotated"], columns["detected"]) == ([7], [2], [2])
    assert (columns["missed"], columns["background"], columns["similarity"]) == ([1], [1], [1])
    # Every joint of the detected person has a score of 0.5 and is at its true place.
    assert analysis.calibration[10].tolist() == [17, 0, 0]
    assert analysis.calibration.sum() == 17


def test_a_worse_pose_with_a_better_score_is_a_scoring_error() -> None:
    false_positive = person(0)
    false_positive[:, :2] += 50_000
    analysis = analysis_of(ground_truth(person(0)), detections(false_positive, person(0), pose_scores=[0.9, 0.8]))
    assert analysis.ap == pytest.approx(0.5)
    assert analysis.alone["score"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(8))
def test_shares_add_up_and_repairing_everything_gives_an_ap_of_1(seed: int) -> None:
    truth, poses, _ = made_up(seed)
    analysis = analyse(count_errors(eval_images_of(truth, poses), SKELETON))
    assert sum(analysis.shares.values()) == pytest.approx(1)
    assert list(analysis.cumulative) == list(ERRORS)
    assert analysis.cumulative["missed"] == pytest.approx(1)
    assert analysis.ap < analysis.cumulative["missed"]
    labelled = 0
    for eval_image in eval_images_of(truth, poses):
        matched = diagnose(eval_image, SKELETON).person
        labelled += int((eval_image.ground_truth.keypoints[matched[matched >= 0], :, 2] > 0).sum())
    assert labelled == sum(int(counts.sum()) for counts in analysis.joints.values())


def test_repairing_missed_people_is_enough_if_all_are_missed() -> None:
    analysis = analysis_of(ground_truth(person(0)), detections(person(50_000)))
    assert (analysis.ap, analysis.alone["missed"], analysis.cumulative["missed"]) == (0, 1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_repairs_of_absent_errors_change_nothing(seed: int) -> None:
    """`count_errors` does not match them again; this test does."""
    truth, poses, _ = made_up(seed)
    eval_images = eval_images_of(truth, poses)
    counted = count_errors(eval_images, SKELETON).matches
    for kinds, matches in zip(errors.REPAIRS, counted, strict=True):
        again = [errors.match_all_sizes(errors.repaired(s, diagnose(s, SKELETON), kinds), SIGMAS) for s in eval_images]
        for name, values in join(again)._asdict().items():
            np.testing.assert_array_equal(getattr(matches, name), values, err_msg=f"{kinds}: {name}")
