"""Joints of people that have only a box, as MediaPipe Pose sees them: how the shipped weights got a part of their data.

The model (Bazarevsky et al., BlazePose, 2020; Apache 2.0) is pose_landmark_heavy.tflite of the npm package
@mediapipe/pose. It puts joints elsewhere than COCO's annotators, so that a correction is fitted to the people of the
same file who have both; and it is often sure of a wrong person, so that only poses which fill their box are kept.

uv run --with ai-edge-litert infra/mediapipe_labels.py pose_landmark_heavy.tflite train.json images/ out.json
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline import storage
from pipeline.images import decode_image

SIDE = 256
# Of the model's 39 points: COCO's 17 joints; the two that place a crop; and what counts as a confident pose.
COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
CENTRE, RADIUS = 33, 34
SURE, VISIBLE, CLEARLY_VISIBLE = 0.8, 0.5, 0.7
LEAST_JOINTS, LEAST_FILLED, LEAST_SIDE_PX = 6, 0.5, (36, 10)
RIGHT = 0.12  # of the longer side of the box: joints further off than this do not count for the correction
SHOULDERS, HIPS = (5, 6), (11, 12)


class Pose(NamedTuple):
    """keypoints (17, 2) in image pixels, visible (17,) and person in 0..1; aim (2, 2) the points that place a crop."""

    keypoints: np.ndarray
    visible: np.ndarray
    person: float
    aim: np.ndarray


class Model:
    def __init__(self, path: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(path, num_threads=2)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = {tuple(o["shape"]): o["index"] for o in self._interpreter.get_output_details()}
        self._points, self._person = outputs[1, 195], outputs[1, 1]

    def __call__(self, pixels: np.ndarray, box: np.ndarray) -> Pose:
        """The pose in a box: seen upright first, then again centred and turned as the model likes it."""
        centre, side = (box[:2] + box[2:]) / 2, 1.25 * (box[2:] - box[:2]).max()
        first = self._look(pixels, centre, side, 0.0)
        towards = first.aim[1] - first.aim[0]
        radius = float(np.linalg.norm(towards))
        if first.person < VISIBLE or radius < 2:
            return first
        angle = np.pi / 2 + np.arctan2(towards[1], towards[0])
        again = self._look(pixels, first.aim[0], 2.5 * radius, angle)
        return again if again.person >= first.person - 0.1 else first

    def _look(self, pixels: np.ndarray, centre: np.ndarray, side: float, angle: float) -> Pose:
        scale = side / SIDE
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = np.column_stack([turn, centre - turn @ [SIDE / 2, SIDE / 2]])
        crop = cv2.warpAffine(pixels, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        self._interpreter.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._interpreter.invoke()
        points = self._interpreter.get_tensor(self._points).reshape(39, 5)
        person = float(self._interpreter.get_tensor(self._person)[0, 0])
        places = (points[:, :2] - SIDE / 2) @ turn.T + centre
        visible = 1 / (1 + np.exp(-points[COCO, 3]))
        return Pose(places[COCO], visible, person, places[[CENTRE, RADIUS]])


def body_vectors(keypoints: np.ndarray) -> np.ndarray:
    """(..., 17, 2) to (..., 3, 2): across the hips, up the trunk, across the shoulders."""
    hips, shoulders = keypoints[..., HIPS, :], keypoints[..., SHOULDERS, :]
    trunk = shoulders.mean(axis=-2) - hips.mean(axis=-2)
    return np.stack([hips[..., 1, :] - hips[..., 0, :], trunk, shoulders[..., 1, :] - shoulders[..., 0, :]], axis=-2)


def fit_correction(poses: list[Pose], entries: list[dict[str, Any]]) -> np.ndarray:
    """(17, 3) how much of each body vector lies between the model's joint and COCO's, by least squares."""
    found = np.array([pose.keypoints for pose in poses])
    true = np.array([entry["keypoints"] for entry in entries], float).reshape(-1, 17, 3)
    side = np.array([max(entry["bbox"][2:]) for entry in entries])[:, None]
    sure = np.array([pose.person for pose in poses])[:, None] > SURE
    near = np.linalg.norm(found - true[..., :2], axis=2) < RIGHT * side
    counted = (true[..., 2] > 0) & near & sure
    vectors = body_vectors(found) / side[..., None]
    missing = (true[..., :2] - found) / side[..., None]
    correction = np.zeros((17, 3))
    for joint in range(17):
        rows = counted[:, joint]
        x = vectors[rows].transpose(0, 2, 1).reshape(-1, 3)
        correction[joint] = np.linalg.lstsq(x, missing[rows, joint].reshape(-1), rcond=None)[0]
    return correction


def label(pose: Pose, entry: dict[str, Any], correction: np.ndarray) -> dict[str, Any] | None:
    """The entry with joints, or None where the pose is not to be trusted."""
    x, y, width, height = entry["bbox"]
    places = pose.keypoints + correction @ body_vectors(pose.keypoints)
    clear = places[pose.visible > CLEARLY_VISIBLE]
    if pose.person < SURE or len(clear) < 4 or np.ptp(clear[:, 1]) < LEAST_FILLED * height:
        return None
    share = (places - [x, y]) / [width, height]
    kept = (pose.visible > VISIBLE) & ((share > -0.1) & (share < 1.1)).all(axis=1)
    if kept.sum() < LEAST_JOINTS:
        return None
    keypoints = np.column_stack([places, np.full(17, 2)]) * kept[:, None]
    return {**entry, "keypoints": keypoints.round(1).ravel().tolist(), "num_keypoints": int(kept.sum())}


def main(model_path: str, annotations: str, images: str, output: str) -> None:
    content = json.loads(storage.read_bytes(annotations))
    # Photographs of which not everybody is labelled belong to a set that teaches other things.
    photographs = {image["id"]: image for image in content["images"] if image.get("dense_boxes", True)}
    model = Model(model_path)
    entries: list[dict[str, Any]] = []
    poses: list[Pose] = []
    for image in photographs.values():
        people = [e for e in content["annotations"] if e["image_id"] == image["id"] and not e.get("iscrowd")]
        people = [
            e for e in people if max(e["bbox"][2:]) >= LEAST_SIDE_PX[0] and min(e["bbox"][2:]) >= LEAST_SIDE_PX[1]
        ]
        if people:
            pixels = decode_image(storage.read_bytes(storage.join(images, image["file_name"]))).pixels
        for entry in people:
            x, y, width, height = entry["bbox"]
            entries.append(entry)
            poses.append(model(pixels, np.array([x, y, x + width, y + height])))
    labelled = [any(entry["keypoints"][2::3]) for entry in entries]
    both = [(p, e) for p, e, known in zip(poses, entries, labelled, strict=True) if known]
    correction = fit_correction([p for p, _ in both], [e for _, e in both])
    plain = [(p, e) for p, e, known in zip(poses, entries, labelled, strict=True) if not known]
    told = [entry for entry in (label(p, e, correction) for p, e in plain) if entry is not None]
    seen = {entry["image_id"] for entry in told}
    kept = {**content, "images": [photographs[i] for i in photographs if i in seen], "annotations": told}
    storage.write_bytes(output, json.dumps(kept).encode())
    print(f"{output}: {len(told)} of {len(plain)} people without joints")


if __name__ == "__main__":
    main(*sys.argv[1:])
