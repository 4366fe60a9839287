"""Confidence intervals: resampled AP against pycocotools on repeated images, and coverage on known distributions."""

import copy

import numpy as np
import pytest
from support.coco import SKELETON, eval_images_of, made_up, pycocotools_stats

from pipeline.evaluation.intervals import Estimate, average_precisions, resamples
from pipeline.evaluation.keypoints import match_keypoints


def repeated(truth: dict, poses: list[dict], times: np.ndarray) -> tuple[dict, list[dict]]:
    """The annotations and results if each image occurred several times."""
    images, annotations, results = [], [], []
    for image, count in zip(truth["images"], times, strict=True):
        for n in range(count):
            id_ = image["id"] * 1000 + n
            images.append({**image, "id": id_})
            for source, target in ((truth["annotations"], annotations), (poses, results)):
                target += [{**e, "image_id": id_} for e in source if e["image_id"] == image["id"]]
    annotations = [{**a, "id": number} for number, a in enumerate(annotations, 1)]
    return {**copy.deepcopy(truth), "images": images, "annotations": annotations}, results


@pytest.mark.parametrize("seed", range(8))
def test_ap_of_drawn_images_is_that_of_pycocotools_on_repeated_images(seed: int) -> None:
    truth, poses, _ = made_up(seed)
    for number, entry in enumerate(poses):
        entry["score"] += 1e-6 * number  # no ties: their order would depend on the copies
    matches = match_keypoints(eval_images_of(truth, poses), SKELETON)
    times = np.random.default_rng(seed).integers(0, 4, len(truth["images"]))
    (ours,) = average_precisions(matches, [times])
    assert ours == pytest.approx(pycocotools_stats(*repeated(truth, poses, times), "keypoints")[0], abs=1e-12)
    (whole,) = average_precisions(matches, [np.ones(len(times), int)])
    assert whole == pytest.approx(pycocotools_stats(truth, poses, "keypoints")[0], abs=1e-12)


def test_resamples_draw_every_image_once_on_average_and_are_reproducible() -> None:
    drawn = np.array(list(resamples(50)))
    assert (drawn.sum(axis=1) == 50).all()
    assert abs(drawn.mean(axis=0) - 1).max() < 0.35
    assert (drawn == np.array(list(resamples(50)))).all()


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    estimate = Estimate.of(values.mean(), (values @ weights / weights.sum() for weights in resamples(400)))
    half = 1.96 * values.std() / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.04)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.04)


def test_few_or_equal_images_give_no_interval() -> None:
    """A range of width 0 would look like certainty."""
    assert not list(resamples(9))
    assert len(list(resamples(10))) == 200
    assert not Estimate.of(1.0, [1.0] * 200).is_bounded
    assert f"{Estimate.of(1.0, [1.0] * 200):.2f}" == "1.00"


def test_very_many_images_are_resampled_less_often() -> None:
    assert sum(1 for _ in resamples(100_000)) == 40


def test_undefined_values_are_left_out() -> None:
    assert Estimate.of(0.5, [np.nan, 0.4, 0.6, np.nan]) == pytest.approx((0.5, 0.405, 0.595))
    assert f"{Estimate.of(np.nan, []):.2f}" == "?"
