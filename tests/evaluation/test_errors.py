"""The taxonomy on hand-made cases, one of each kind, and what repairs are worth."""

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
    """How far away a joint has that similarity, pixels."""
    return float(np.sqrt(-np.log(similarity) * 2 * AREA) * 2 * SIGMAS[joint])


def wrong(pose: np.ndarray, *people: np.ndarray, joint: int = LEFT_WRIST) -> str:
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
    assert wrong(moved(LEFT_WRIST, place), person(0)) == kind


def test_on_the_other_side_of_the_same_person_it_is_an_inversion() -> None:
    assert wrong(moved(LEFT_WRIST, person(0)[RIGHT_WRIST, :2]), person(0)) == "inversion"
    assert wrong(moved(NOSE, person(0)[5, :2]), person(0), joint=NOSE) == "miss"  # a nose has no other side


def test_on_another_person_it_is_a_swap() -> None:
    other = person(2000)
    for joint in (LEFT_WRIST, RIGHT_WRIST):
        assert wrong(moved(LEFT_WRIST, other[joint, :2]), person(0), other) == "swap"
    assert wrong(moved(LEFT_WRIST, other[NOSE, :2]), person(0), other) == "miss"


def test_a_joint_that_nobody_labelled_is_not_wrong() -> None:
    truth = person(0)
    truth[LEFT_WRIST] = 0
    assert wrong(moved(LEFT_WRIST, (5000, 5000)), truth) == "unlabelled"


def test_people_who_are_nobody_and_people_whom_nobody_found() -> None:
    nobody = person(0)
    nobody[:, :2] += 50_000
    analysis = analysis_of(ground_truth(person(0), person(9000)), detections(person(0), nobody))
    assert (analysis.background, analysis.missed) == (1, 1)
    assert analysis.shares["good"] == 1
    assert analysis.alone["missed"] == pytest.approx(1)
    assert analysis.alone["background"] == pytest.approx(analysis.ap)
    assert analysis.pck["a tenth of the box"].body == 0.5  # one of two people
    assert analysis.pck["a fifth of the torso"].people == 2
    assert analysis.pck["half the head segment"].joints["nose"] == 0.5
    columns = {name: column.tolist() for name, column in analysis.images.items()}
    assert (columns["image_id"], columns["annotated"], columns["found"]) == ([7], [2], [2])
    assert (columns["missed"], columns["background"], columns["similarity"]) == ([1], [1], [1])
    # Every joint of the one who was found has a score of 0.5 and is at its place.
    assert analysis.calibration[10].tolist() == [17, 0, 0]
    assert analysis.calibration.sum() == 17


def test_a_worse_pose_with_a_better_score_is_a_scoring_error() -> None:
    nobody = person(0)
    nobody[:, :2] += 50_000
    analysis = analysis_of(ground_truth(person(0)), detections(nobody, person(0), certain=[0.9, 0.8]))
    assert analysis.ap == pytest.approx(0.5)
    assert analysis.alone["score"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(8))
def test_shares_add_up_and_repairing_everything_is_perfect(seed: int) -> None:
    truth, poses, _ = made_up(seed)
    analysis = analyse(count_errors(eval_images_of(truth, poses), SKELETON))
    assert sum(analysis.shares.values()) == pytest.approx(1)
    assert list(analysis.cumulative) == list(ERRORS)
    assert analysis.cumulative["missed"] == pytest.approx(1)
    turns = [analysis.ap, *analysis.cumulative.values()]
    assert turns[0] < turns[-1]
    labelled = 0
    for eval_image in eval_images_of(truth, poses):
        whom = diagnose(eval_image, SKELETON).person
        labelled += int((eval_image.ground_truth.keypoints[whom[whom >= 0], :, 2] > 0).sum())
    assert labelled == sum(int(counts.sum()) for counts in analysis.joints.values())


def test_where_everybody_is_missed_finding_them_is_all() -> None:
    analysis = analysis_of(ground_truth(person(0)), detections(person(50_000)))
    assert (analysis.ap, analysis.alone["missed"], analysis.cumulative["missed"]) == (0, 1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_repairs_of_what_is_not_there_change_nothing(seed: int) -> None:
    """They are not matched anew; here they are."""
    truth, poses, _ = made_up(seed)
    eval_images = eval_images_of(truth, poses)
    counted = count_errors(eval_images, SKELETON).matches
    for kinds, matches in zip(errors.REPAIRED, counted, strict=True):
        anew = [errors.match_all_sizes(errors.repaired(s, diagnose(s, SKELETON), kinds), SIGMAS) for s in eval_images]
        for name, values in join(anew)._asdict().items():
            np.testing.assert_array_equal(getattr(matches, name), values, err_msg=f"{kinds}: {name}")
