"""A FiftyOne dataset: detections and keypoints, and if the run has annotations, the truth and the errors.

`fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneDataset)` imports it. The files are of the form
that FiftyOne had before its datasets stated a version: all versions read it, and it leaves the schema to FiftyOne.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.boxes import xywh_to_xyxy
from pipeline.coco.annotations import read_annotations
from pipeline.coco.categories import PERSON
from pipeline.coco.columns import GroundTruth
from pipeline.evaluation.image_errors import TruthOfImages, diagnose_people
from pipeline.formats.common import VISIBLE_SCORE, export_path, rounded, write_json_list
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.run.tables import image_ids, table_skeleton
from pipeline.skeletons import Skeleton

_DIGITS = 5  # of positions, which are fractions of the image


def write_fiftyone(run: Run) -> str:
    """Write the folder of a FiftyOne dataset: `predictions`, `poses`, and with annotations `truth` and `true_poses`.

    With annotations, people have the attribute `eval` (`found`, `missed`, `false positive` or `not judged`), and
    samples have `num_missed` and `num_false_positives`. The path of a sample is the URI of its image; FiftyOne shows
    those of local files.
    """
    folder, skeleton = export_path(run, "fiftyone"), table_skeleton(run.uri)
    truth = _truth(run, skeleton)

    def samples() -> Iterator[dict[str, Any]]:
        for image, people in images_with_people(run):
            size = (image["width"], image["height"])
            annotated = truth.of(image["image_id"]) if truth else None
            yield {
                "filepath": image["uri"],
                "tags": [],
                "metadata": {"_cls": "ImageMetadata", "width": size[0], "height": size[1]},
                "image_id": image["image_id"],
                **_labels(people, annotated, size, skeleton),
            }

    edges = [list(limb) for limb in skeleton.limbs]
    info = {"default_skeleton": {"labels": list(skeleton.joints), "edges": edges}, "run": run.uri}
    metadata = {"name": storage.basename(run.uri.rstrip("/")), "media_type": "image", "info": info}
    storage.write_bytes(storage.join(folder, "metadata.json"), json.dumps(metadata, indent=2).encode())
    with storage.open_write(storage.join(folder, "samples.json")) as stream:
        stream.write(b'{"samples": ')
        write_json_list(stream, samples())
        stream.write(b"}\n")
    return folder


def _truth(run: Run, skeleton: Skeleton) -> TruthOfImages | None:
    if run.settings.annotations is None:
        return None
    annotations = read_annotations(run.settings.annotations, skeleton)
    if not annotations.with_keypoints:
        return None
    row_of = {number: row for row, number in enumerate(annotations.ids.tolist())}
    ids = annotations.match_ids(image_ids(run.uri))
    return TruthOfImages(annotations, {key: row_of[number] for key, number in ids.by_key.items()})


def _labels(
    people: People, truth: GroundTruth | None, size: tuple[int, int], skeleton: Skeleton
) -> dict[str, dict[str, Any] | int]:
    width, height = size
    evaluated: list[str | None] = [None] * len(people)
    fields: dict[str, dict[str, Any] | int] = {}
    if truth is not None:
        people, diagnosis = diagnose_people(people, truth, skeleton)
        found = set(diagnosis.person.tolist())
        evaluated = [
            "found" if person >= 0 else "false positive" if false_positive else "not judged"
            for person, false_positive in zip(diagnosis.person, diagnosis.false_positive, strict=True)
        ]
        evaluated += ["not judged"] * (len(people) - len(evaluated))
        annotated = [
            "not judged" if ignored else "found" if i in found else "missed" for i, ignored in enumerate(truth.ignored)
        ]
        boxes = xywh_to_xyxy(truth.boxes_xywh)
        joints = np.where(truth.keypoints[..., 2:] > 0, truth.keypoints[..., :2], np.nan)
        fields |= {
            "truth": _detections(boxes, [None] * len(boxes), annotated, width, height),
            "true_poses": _keypoints(joints, None, annotated, width, height),
            "num_missed": annotated.count("missed"),
            "num_false_positives": evaluated.count("false positive"),
        }
    shown = np.where((people.keypoint_scores >= VISIBLE_SCORE)[..., None], people.keypoints, np.nan)
    return {
        "predictions": _detections(people.boxes, people.box_scores.tolist(), evaluated, width, height),
        "poses": _keypoints(shown, people.keypoint_scores, evaluated, width, height),
        **fields,
    }


def _detections(
    boxes_xyxy: np.ndarray, scores: Iterable[float | None], evaluated: Iterable[str | None], width: int, height: int
) -> dict[str, Any]:
    detections = []
    for (x1, y1, x2, y2), score, outcome in zip(boxes_xyxy.astype(float), scores, evaluated, strict=True):
        box = rounded([x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height], _DIGITS)
        label: dict[str, Any] = {"_cls": "Detection", "label": PERSON, "bounding_box": box}
        detections.append(label | _known(confidence=score, eval=outcome))
    return {"_cls": "Detections", "detections": detections}


def _keypoints(
    joints: np.ndarray, scores: np.ndarray | None, evaluated: Iterable[str | None], width: int, height: int
) -> dict[str, Any]:
    """Joints that are not shown are NaN, as FiftyOne has them."""
    keypoints = []
    for i, outcome in enumerate(evaluated):
        points = [rounded(point, _DIGITS) for point in joints[i] / [width, height]]
        label: dict[str, Any] = {"_cls": "Keypoint", "label": PERSON, "points": points}
        keypoints.append(label | _known(confidence=None if scores is None else rounded(scores[i]), eval=outcome))
    return {"_cls": "Keypoints", "keypoints": keypoints}


def _known(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
