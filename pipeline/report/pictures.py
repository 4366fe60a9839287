"""Pictures of a page: a photograph, and the people predicted and annotated in it, which the page draws on top."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from pipeline.boxes import xywh_to_xyxy
from pipeline.coco.columns import GroundTruth
from pipeline.evaluation.errors import JOINT_ERRORS, Diagnosis
from pipeline.evaluation.image_errors import TruthOfImages, diagnose_people
from pipeline.jpeg import encode_jpeg
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import people_of, pixels_of
from pipeline.skeletons import Skeleton

LARGE, SMALL = 720, 400  # longer side, pixels
_QUALITY = 80
_MIN_JOINT_SCORE = 0.2  # joints below it are not drawn
# Classes of a predicted joint: `Diagnosis.errors` counts from -2.
JOINT_CLASSES = ("unlabelled", "good", *JOINT_ERRORS)


def pictures(
    run: Run, chosen: Mapping[str, str], sides: Mapping[str, int], truth: TruthOfImages | None, skeleton: Skeleton
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(image id, picture) of images that are still there: they may have been deleted since they were annotated.

    Args:
        chosen: image id to shard.
        sides: longer side of each picture in pixels, by image id.
        truth: for the annotated people, and the errors of the predicted ones.
    """
    people = people_of(run, set(chosen))
    for image_id, pixels in pixels_of(run, dict(chosen)):
        picture = {
            "src": _data_uri(pixels, sides[image_id]), "width": pixels.shape[1], "height": pixels.shape[0]
        }  # fmt: skip
        yield image_id, picture | overlay(people[image_id], truth.of(image_id) if truth else None, skeleton)


def overlays(
    run: Run, image_ids: Mapping[str, str], truth: TruthOfImages, skeleton: Skeleton
) -> dict[str, dict[str, Any]]:
    """The people that another run has in some images, without the photographs, by image id.

    Args:
        image_ids: id to the id that the image has in that run.
    """
    people = people_of(run, set(image_ids.values()))
    return {id_: overlay(people[other], truth.of(id_), skeleton) for id_, other in image_ids.items()}


def overlay(people: People, truth: GroundTruth | None, skeleton: Skeleton) -> dict[str, Any]:
    """Predicted and annotated people as plain values, in pixels of the original image.

    A predicted joint is [x, y, class], null if its score is low; an annotated one is [x, y], null if it is unlabelled.
    """
    diagnosis = None
    if truth is not None:
        people, diagnosis = diagnose_people(people, truth, skeleton)
    predicted = [_predicted(people, i, diagnosis) for i in range(len(people))]
    if truth is None or diagnosis is None:
        return {"people": predicted, "truth": []}
    found = set(diagnosis.person.tolist())
    return {"people": predicted, "truth": [_annotated(truth, i, i in found) for i in range(len(truth.areas))]}


def _predicted(people: People, i: int, diagnosis: Diagnosis | None) -> dict[str, Any]:
    kind, classes = "unknown" if diagnosis is None else "ignored", np.zeros(people.keypoints.shape[1], int)
    if diagnosis is not None and i < len(diagnosis.person):
        unmatched = "false positive" if diagnosis.false_positive[i] else "ignored"
        kind, classes = "found" if diagnosis.person[i] >= 0 else unmatched, diagnosis.errors[i] + 2
    joints = [
        [round(float(x)), round(float(y)), int(joint_class)] if score >= _MIN_JOINT_SCORE else None
        for (x, y), score, joint_class in zip(people.keypoints[i], people.keypoint_scores[i], classes, strict=True)
    ]
    return {
        "kind": kind,
        "box": [round(float(v)) for v in people.boxes[i]],
        "score": round(float(people.box_scores[i]), 2),
        "joints": joints,
    }


def _annotated(truth: GroundTruth, i: int, found: bool) -> dict[str, Any]:
    kind = "ignored" if truth.ignored[i] else "found" if found else "missed"
    return {
        "kind": kind,
        "box": [round(float(v)) for v in xywh_to_xyxy(truth.boxes_xywh[i : i + 1])[0]],
        "joints": [[round(float(x)), round(float(y))] if v > 0 else None for x, y, v in truth.keypoints[i]],
    }


def _data_uri(pixels: np.ndarray, side: int) -> str:
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = (max(1, int(pixels.shape[1] * scale)), max(1, int(pixels.shape[0] * scale)))
    shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(shrunk, _QUALITY)).decode()
