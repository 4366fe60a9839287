"""Time the keypoint evaluation and pycocotools on the same synthetic data, and compare their numbers.

uv run infra/benchmarks/evaluation_speed.py                          5,000 images x 10 people
uv run infra/benchmarks/evaluation_speed.py --images 500 --people 4

Exit code 1 if the numbers differ.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.evaluation import evaluate_keypoints
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]


def synthetic(images: int, people: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO annotations and results: people at random places, each with one noisy predicted pose.

    Args:
        images: number of images.
        people: number of people in each image.
    """
    r = np.random.default_rng(0)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    results = []
    for image in range(1, images + 1):
        truth["images"].append({"id": image, "file_name": f"{image}.jpg"})
        for _ in range(people):
            x, y, w, h = *r.random(2) * 400, *(20 + r.random(2) * 200)
            joints = np.column_stack([x + r.random(17) * w, y + r.random(17) * h, np.full(17, 2.0)])
            entry = {"image_id": image, "category_id": 1}
            truth["annotations"].append(
                {
                    **entry, "id": len(results) + 1, "iscrowd": 0, "bbox": [x, y, w, h], "area": w * h * 0.6,
                    "keypoints": joints.ravel().tolist(), "num_keypoints": 17,
                }
            )  # fmt: skip
            joints[:, :2] += r.normal(0, r.choice([1.0, 5.0, 20.0]), (17, 2))
            results.append({**entry, "keypoints": joints.ravel().tolist(), "score": float(r.random())})
    return truth, results


def evaluate_with_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    """The ten keypoint numbers of COCOeval, in its order."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = {**truth, "info": {}}
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes([dict(entry) for entry in results]), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="number of images (default: 5000)")
    parser.add_argument("--people", type=int, default=10, help="people per image (default: 10)")
    arguments = parser.parse_args()
    truth, results = synthetic(arguments.images, arguments.people)
    started = time.perf_counter()
    ours = list(evaluate_keypoints(results, truth, SKELETON).numbers.values())
    evaluated = time.perf_counter()
    theirs = evaluate_with_pycocotools(truth, results)
    seconds, their_seconds = evaluated - started, time.perf_counter() - evaluated
    print(f"{arguments.images} images x {arguments.people} people: AP {ours[0]:.4f}")
    ratio = their_seconds / seconds
    print(f"posemill {seconds:.1f} s   pycocotools {their_seconds:.1f} s   posemill is {ratio:.1f} times as fast")
    print("numbers are bit-identical" if ours == theirs else f"NUMBERS DIFFER: posemill {ours}, pycocotools {theirs}")
    return int(ours != theirs)


if __name__ == "__main__":
    sys.exit(main())
