"""Equality with pycocotools, the reference, to the last bit."""

import json

import numpy as np
import pytest
from support.coco import SKELETON, made_up, pycocotools_stats
from support.paths import PEOPLE, needs_people

from pipeline.evaluation import evaluate_boxes, evaluate_keypoints

_KEYPOINTS = ["ap", "ap50", "ap75", "ap_m", "ap_l", "ar", "ar50", "ar75", "ar_m", "ar_l"]


@pytest.mark.parametrize("seed", range(30))
def test_keypoints_equal_pycocotools(seed: int) -> None:
    truth, poses, _ = made_up(seed)
    ours = evaluate_keypoints(poses, truth, SKELETON)
    assert [getattr(ours, name) for name in _KEYPOINTS] == pycocotools_stats(truth, poses, "keypoints")


@pytest.mark.parametrize("seed", range(30))
def test_boxes_equal_pycocotools(seed: int) -> None:
    truth, _, boxes = made_up(seed)
    ours = evaluate_boxes(boxes, truth)
    expected = pycocotools_stats(truth, boxes, "bbox")
    actual = [ours.ap, ours.ap50, ours.ap75, ours.ap_m, ours.ap_l, ours.ar, ours.ar_m, ours.ar_l]
    assert actual == [expected[i] for i in (0, 1, 2, 4, 5, 8, 10, 11)]


def test_the_order_of_results_does_not_matter_if_scores_differ() -> None:
    truth, poses, _ = made_up(3)
    for i, entry in enumerate(poses):
        entry["score"] = i / 1000
    shuffled = [poses[i] for i in np.random.default_rng(0).permutation(len(poses))]
    assert evaluate_keypoints(poses, truth, SKELETON) == evaluate_keypoints(shuffled, truth, SKELETON)


@needs_people
def test_jittered_copies_of_real_annotations_equal_pycocotools(tmp_path) -> None:
    truth = json.loads((PEOPLE / "val.json").read_text())
    r = np.random.default_rng(0)
    results = []
    for annotation in truth["annotations"]:
        if annotation["num_keypoints"]:
            joints = np.array(annotation["keypoints"], float).reshape(17, 3)
            joints[:, :2] += r.normal(0, 4, (17, 2))
            entry = {"image_id": annotation["image_id"], "category_id": 1, "score": float(r.random())}
            results.append({**entry, "keypoints": joints.ravel().tolist()})
    (tmp_path / "results.json").write_text(json.dumps(results))
    ours = evaluate_keypoints(str(tmp_path / "results.json"), str(PEOPLE / "val.json"), SKELETON)
    assert [getattr(ours, name) for name in _KEYPOINTS] == pycocotools_stats(truth, results, "keypoints")
    assert 0.3 < ours.ap < 0.99


def test_ap_is_zero_without_results_and_undefined_without_annotations() -> None:
    truth, poses, _ = made_up(1)
    assert evaluate_keypoints([], truth, SKELETON).ap == 0
    assert evaluate_boxes([], truth).ap == 0
    assert evaluate_keypoints([], {**truth, "annotations": []}, SKELETON).ap == -1
    assert evaluate_keypoints(poses, {**truth, "annotations": []}, SKELETON).ap == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 999}, r"entry 1 \(image_id 999\): the annotations have no such image"),
        ({"keypoints": [0.0] * 50}, r"entry 1 \(image_id \d+\): 50 values in 'keypoints', expected 51"),
        ({"keypoints": None}, "no values"),
        ({"keypoints": [float("nan")] * 51}, "not finite"),
        ({"score": float("inf")}, "not finite"),
        ({"score": None}, "no score; average precision needs one"),
        ({"score": "high"}, "results entry 1 has a value of the wrong type"),
        ({"image_id": [1]}, r"results entry 1 has the image id \[1\]; expected a whole number or text"),
    ],
)
def test_a_bad_entry_is_named(change: dict, message: str) -> None:
    truth, poses, _ = made_up(1)
    poses[1] = {key: value for key, value in {**poses[1], **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        evaluate_keypoints(poses, truth, SKELETON)


def test_repeated_results_are_counted_in_a_warning() -> None:
    truth, poses, _ = made_up(1)
    assert evaluate_keypoints(poses, truth, SKELETON).warnings == ()
    doubled = [*poses, poses[0], poses[0], poses[3]]
    (warning,) = evaluate_keypoints(doubled, truth, SKELETON).warnings
    assert warning.startswith("3 results entries occur more than once")
    ours = evaluate_keypoints(doubled, truth, SKELETON)
    assert [getattr(ours, name) for name in _KEYPOINTS] == pycocotools_stats(truth, doubled, "keypoints")


def test_annotations_as_results_have_an_ap_of_1() -> None:
    truth, _, _ = made_up(2)
    perfect = [
        {"image_id": a["image_id"], "keypoints": a["keypoints"], "score": 1.0}
        for a in truth["annotations"]
        if a["num_keypoints"] and not a["iscrowd"]
    ]
    metrics = evaluate_keypoints(perfect, truth, SKELETON)
    assert (metrics.ap, metrics.ar) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3, 4, 5]}, r"annotations\[1\] has 5 values in 'bbox'"),
        ({"bbox": None}, r"annotations\[1\] has a value of the wrong type"),
        ({"area": "large"}, r"annotations\[1\] has a value of the wrong type"),
        (
            {"keypoints": [1.0] * 50},
            r"annotations\[1\] \(image_id \d+\) has 50 values in 'keypoints', expected 51 \(coco17\)",
        ),
        ({"image_id": 1.5}, r"annotations\[1\] has the image id 1.5; expected a whole number or text"),
        ({"area": float("nan")}, r"annotations\[1\] \(image_id \d+\) has a number that is not finite"),
    ],
)
def test_a_bad_annotation_is_named(change: dict, message: str) -> None:
    truth, poses, _ = made_up(1)
    truth["annotations"][1] |= change
    with pytest.raises(ValueError, match=message):
        evaluate_keypoints(poses, truth, SKELETON)


def test_a_bad_image_is_named() -> None:
    truth, poses, _ = made_up(1)
    for change, message in (
        ({"id": None}, "image id None; expected a whole number or text"),
        ({"id": 2}, "two images have the id 2"),
    ):
        images = [truth["images"][0] | change, *truth["images"][1:]]
        with pytest.raises(ValueError, match=message):
            evaluate_keypoints(poses, truth | {"images": images}, SKELETON)
    with pytest.raises(ValueError, match="it has no `images`"):
        evaluate_keypoints(poses, {"annotations": []}, SKELETON)


def test_labelled_joints_are_counted_if_num_keypoints_is_missing() -> None:
    truth, poses, _ = made_up(1)
    without_count = [{k: v for k, v in a.items() if k != "num_keypoints"} for a in truth["annotations"]]
    expected = evaluate_keypoints(poses, truth, SKELETON)
    assert evaluate_keypoints(poses, truth | {"annotations": without_count}, SKELETON) == expected
    assert expected.ap > 0
