"""People found and invented at the threshold of a run."""

import numpy as np
import pytest
from scipy.stats import binomtest
from support.coco import SKELETON, eval_images_of, made_up

from pipeline.evaluation.errors import count_errors, count_people
from pipeline.evaluation.keypoints import match_boxes, match_keypoints
from pipeline.evaluation.operating_point import OperatingPoint, join_points, mean_f1


def point(annotated: list[int], found: list[int], false_positives: list[int]) -> OperatingPoint:
    return OperatingPoint(*(np.array(v) for v in (annotated, found, false_positives, [0] * len(found))))


def test_rates_are_ratios_of_sums_over_images() -> None:
    counted = point([3, 0, 1, 4], [2, 0, 1, 2], [1, 2, 0, 0])
    assert counted.recall.value == 5 / 8
    assert counted.precision.value == 5 / 8
    assert counted.false_positives_per_image.value == 3 / 4
    assert counted.rates == (5 / 8, 5 / 8, 3 / 4)
    assert not counted.recall.is_bounded, "four images are too few"
    assert counted.missed.tolist() == [1, 0, 0, 2]
    assert counted.to_json()["found"] == 5


def test_the_interval_of_recall_is_that_of_a_binomial_share() -> None:
    found = np.random.default_rng(0).random(300) < 0.7
    recall = point([1] * 300, found.astype(int).tolist(), [0] * 300).recall
    exact = binomtest(int(found.sum()), 300).proportion_ci()
    assert (recall.low, recall.high) == (pytest.approx(exact.low, abs=0.02), pytest.approx(exact.high, abs=0.02))


def test_few_images_without_an_error_do_not_prove_that_there_are_none() -> None:
    """Resamples of no event have none either; an exact interval of 0 of 20 ends at 0.17."""
    perfect = point([1] * 20, [1] * 20, [0] * 20)
    exact = binomtest(20, 20).proportion_ci()
    assert perfect.recall.low == pytest.approx(exact.low, abs=0.03)
    assert perfect.precision.low == pytest.approx(exact.low, abs=0.03)
    assert perfect.false_positives_per_image == (0, 0, pytest.approx(0.15))
    assert perfect.recall.high == 1
    nothing = point([1] * 20, [0] * 20, [0] * 20)
    assert nothing.recall[:2] == (0, 0)
    assert nothing.recall.high == pytest.approx(0.15)
    assert np.isnan(nothing.precision.value)


@pytest.mark.parametrize("seed", range(10))
def test_the_error_analysis_and_the_count_of_people_agree(seed: int) -> None:
    truth, poses, _ = made_up(seed)
    images = eval_images_of(truth, poses)
    counts = count_errors(images, SKELETON).images
    (people,) = count_people(images, SKELETON)
    assert people.annotated.tolist() == counts["annotated"].tolist()
    assert people.missed.tolist() == counts["missed"].tolist()
    assert people.false_positives.tolist() == counts["background"].tolist()
    assert (people.found + people.false_positives + people.not_judged).tolist() == counts["detected"].tolist()
    halves = join_points([count_people(chunk, SKELETON)[0] for chunk in images.chunks(5)])
    assert halves.found.tolist() == people.found.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_people_above_several_thresholds_are_counted_at_once(seed: int) -> None:
    truth, poses, _ = made_up(seed)
    everything = eval_images_of(truth, poses)
    kept = np.array([everything.detections.scores >= threshold for threshold in (0, 0.3, 0.7)])
    for threshold, counted in zip((0, 0.3, 0.7), count_people(everything, SKELETON, kept), strict=True):
        images = eval_images_of(truth, [entry for entry in poses if entry["score"] >= threshold])
        (alone,) = count_people(images, SKELETON)
        for name in ("annotated", "found", "false_positives", "not_judged"):
            assert getattr(counted, name).tolist() == getattr(alone, name).tolist()


def annotation(image: int, bbox: list[float], joints: np.ndarray | None = None, crowd: int = 0) -> dict:
    keypoints = np.zeros((17, 3)) if joints is None else np.column_stack([joints, np.full(17, 2)])
    entry = {"id": image * 10 + crowd, "image_id": image, "category_id": 1, "iscrowd": crowd, "bbox": bbox}
    labelled = {"keypoints": keypoints.ravel().tolist(), "num_keypoints": int((keypoints[:, 2] > 0).sum())}
    return {**entry, "area": bbox[2] * bbox[3], **labelled}


def pose(image: int, joints: np.ndarray) -> dict:
    values = np.column_stack([joints, np.ones(17)]).ravel().tolist()
    return {"image_id": image, "category_id": 1, "keypoints": values, "score": 0.9}


def test_poses_on_crowds_and_on_people_without_joints_are_not_false_positives() -> None:
    body = np.random.default_rng(0).random((17, 2)) * (40, 90)
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2, 3, 4)],
        "annotations": [
            annotation(1, [100, 100, 300, 200], crowd=1),
            annotation(2, [100, 100, 50, 100]),
            annotation(3, [100, 100, 50, 100], body + 100),
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    poses = [pose(1, body + 150), pose(1, body + 390), pose(2, body + 103), pose(2, body + 230), pose(3, body + 102)]
    (people,) = count_people(eval_images_of(truth, [*poses, pose(4, body)]), SKELETON)
    assert people.not_judged.tolist() == [1, 1, 0, 0]
    assert people.annotated.tolist() == [0, 0, 1, 0]
    assert people.found.tolist() == [0, 0, 1, 0]
    assert people.false_positives.tolist() == [1, 1, 0, 1]


def test_boxes_count_at_an_overlap_of_a_half() -> None:
    truth, poses, _ = made_up(5)
    images = eval_images_of(truth, poses)
    counted = OperatingPoint.of(match_boxes(images))
    overlaps = match_boxes(images)
    assert counted.annotated.sum() == overlaps.people[0].sum()
    assert (counted.found <= counted.annotated).all()
    perfect = [pose(a["image_id"], np.array(a["keypoints"]).reshape(17, 3)[:, :2]) for a in truth["annotations"]]
    labelled = [p for p, a in zip(perfect, truth["annotations"], strict=True) if a["num_keypoints"] == 17]
    matches = match_keypoints(eval_images_of(truth, labelled), SKELETON)
    found = OperatingPoint.of(matches)
    assert found.found.sum() == sum(a["num_keypoints"] == 17 and not a["iscrowd"] for a in truth["annotations"])


def test_f1_is_one_for_perfect_poses_and_falls_with_every_false_positive() -> None:
    body = np.random.default_rng(0).random((17, 2)) * (40, 90)
    truth = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [annotation(1, [0, 0, 40, 90], body)],
        "categories": [{"id": 1, "name": "person"}],
    }
    far = [{**pose(1, body + 500 * n), "score": 0.1} for n in range(1, 4)]
    scores = [
        *(
            v
            for n in range(4)
            for v in mean_f1(match_keypoints(eval_images_of(truth, [pose(1, body), *far[:n]]), SKELETON))
        )
    ]
    assert scores == [pytest.approx(v) for v in (1, 2 / 3, 2 / 4, 2 / 5)]
    assert list(mean_f1(match_keypoints(eval_images_of(truth, []), SKELETON))) == [0]
