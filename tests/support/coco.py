"""Synthetic annotations and detections for tests of the evaluation."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.coco.annotations import read_annotations
from pipeline.coco.columns import Detections, GroundTruth
from pipeline.coco.results import read_results
from pipeline.evaluation.eval_images import EvalImages, pair
from pipeline.evaluation.matching import KEYPOINT_RULES
from pipeline.skeletons import SKELETONS, Skeleton

SKELETON = SKELETONS["coco17"]
AREA = 100.0 * 200


def made_up(seed: int) -> tuple[dict, list[dict], list[dict]]:
    """Annotations with crowds, people without keypoints and images without people; jittered and random results."""
    r = np.random.default_rng(seed)
    truth: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    poses, boxes = [], []
    for image in range(1, 13):
        truth["images"].append({"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480})
        for _ in range(int(r.integers(0, 5)) if image % 4 else 0):
            x, y, w, h = *r.random(2) * 300, *(20 + r.random(2) * 250)
            visible = r.random(17) < r.choice([0.0, 0.4, 1.0])
            joints = np.column_stack([x + r.random(17) * w, y + r.random(17) * h, np.where(visible, 2, 0)])
            joints[~visible] = 0
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": int(r.random() < 0.1),
                    "bbox": [x, y, w, h],
                    "area": w * h * 0.6,
                    "keypoints": joints.ravel().tolist(),
                    "num_keypoints": int(visible.sum()),
                }
            )
            for _ in range(int(r.integers(0, 3))):
                moved = joints[:, :2] + r.normal(0, r.choice([1.0, 6.0, 20.0]), (17, 2))
                score = float(np.round(r.random(), 1))  # ties
                values = np.column_stack([moved, r.random(17)]).ravel().tolist()
                poses.append({"image_id": image, "category_id": 1, "keypoints": values, "score": score})
                box = (np.array([x, y, w, h]) + r.normal(0, 8, 4)).tolist()
                boxes.append({"image_id": image, "category_id": 1, "bbox": box, "score": score})
        for _ in range(22 if image == 4 else 1):  # more than the 20 that count
            values = (r.random(51) * 300).tolist()
            poses.append({"image_id": image, "category_id": 1, "keypoints": values, "score": float(r.random())})
    return truth, poses, boxes


def eval_images_of(truth: dict, poses: list[dict], skeleton: Skeleton = SKELETON) -> EvalImages:
    known = read_annotations(truth, skeleton)
    results = read_results(poses, known, skeleton)
    return pair(known, results.image_ids, results.detections, KEYPOINT_RULES.max_detections)


def person(x: float) -> np.ndarray:
    """(17, 3) joints far from each other, all labelled."""
    return np.array([[x + 400 * (k % 2), 30.0 * k, 2.0] for k in range(17)])


def ground_truth(*people: np.ndarray) -> GroundTruth:
    no = np.zeros(len(people), bool)
    boxes = np.array([[0, 0, 100, 200.0]] * len(people))
    heads = np.full(len(people), 50.0)
    return GroundTruth(boxes, np.full(len(people), AREA), no, no, np.array(people), heads)


def detections(*poses: np.ndarray, pose_scores: list[float] | None = None) -> Detections:
    keypoints = np.array(poses)[..., :2]
    scores = np.array(pose_scores if pose_scores else np.linspace(0.9, 0.5, len(poses)))
    joint_scores = np.full(keypoints.shape[:2], 0.5)
    return Detections(np.zeros((len(poses), 4)), np.full(len(poses), AREA), scores, keypoints, joint_scores)


def one_image(people: GroundTruth, poses: Detections, **labels: int) -> EvalImages:
    ends = (np.array([0, len(people.areas)]), np.array([0, len(poses.scores)]))
    return EvalImages(
        np.array([7]), people, ends[0], poses, ends[1], {name: np.array([n]) for name, n in labels.items()}
    )


def pycocotools_stats(truth: dict, results: list[dict], kind: str) -> list[float]:
    """The numbers of COCOeval, in its order."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = json.loads(json.dumps(truth))
        ground.dataset.setdefault("info", {})
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(json.loads(json.dumps(results))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(v) for v in evaluation.stats]
