"""The COCO numbers of keypoints and person boxes, pycocotools' to the last bit."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.evaluation.curves import Curves, accumulate
from pipeline.evaluation.matching import (
    BOX_RULES,
    KEYPOINT_RULES,
    Annotated,
    Found,
    Matches,
    Rules,
    best_first,
    box_similarity,
    join,
    keypoint_similarity,
    match,
)
from pipeline.skeletons import Skeleton

PERSON = 1


@dataclass(frozen=True)
class Metrics:
    """COCO's average precision and recall, in 0..1; -1 where the annotations have nothing to measure.

    `ap` and `ar` average over similarity 0.50:0.05:0.95, `ap50` is at 0.50, `ap_m` and `ap_l` are of medium and large
    people (area 32^2 to 96^2, and above).
    """

    ap: float
    ap50: float
    ap75: float
    ap_m: float
    ap_l: float
    ar: float
    ar50: float
    ar75: float
    ar_m: float
    ar_l: float

    @classmethod
    def of(cls, curves: Curves) -> Metrics:
        wanted = (("all", None), ("all", 0.5), ("all", 0.75), ("medium", None), ("large", None))
        return cls(*(curves.mean(values, *what) for values in (curves.precision, curves.recall) for what in wanted))


class Evaluation(NamedTuple):
    """Numbers, the curves behind them, and what was odd about the results though COCO tolerates it."""

    metrics: Metrics
    curves: Curves
    warnings: tuple[str, ...]


class Scene(NamedTuple):
    """An image: who is annotated, and who was found, best first."""

    annotated: Annotated
    found: Found


def evaluate_keypoints(
    results: str | Sequence[Mapping[str, Any]], annotations: str | Mapping[str, Any], skeleton: Skeleton
) -> Evaluation:
    """The ten COCO keypoint numbers over all images of the annotations.

    Args:
        results: COCO keypoint results, or a URI of them: image_id, category_id 1, keypoints [x, y, score] * K, score.
        annotations: COCO keypoint annotations, or a URI of them.
        skeleton: joints and OKS sigmas.

    Raises:
        ValueError: an entry that cannot be evaluated, named by its number.
    """
    truth, found = _load(annotations), _load(results)
    warnings = check_results(found, truth, "keypoints", 3 * len(skeleton))
    scenes = scenes_of(truth, found, KEYPOINT_RULES, len(skeleton))
    return _evaluation(match_scenes(scenes, KEYPOINT_RULES, np.array(skeleton.oks_sigmas)), KEYPOINT_RULES, warnings)


def evaluate_boxes(results: str | Sequence[Mapping[str, Any]], annotations: str | Mapping[str, Any]) -> Evaluation:
    """The COCO numbers of person boxes, with at most 100 boxes an image.

    Args:
        results: COCO detection results, or a URI of them: image_id, category_id 1, bbox [x, y, w, h], score.
        annotations: COCO annotations, or a URI of them.
    """
    truth, found = _load(annotations), _load(results)
    warnings = check_results(found, truth, "bbox", 4)
    return _evaluation(match_scenes(scenes_of(truth, found, BOX_RULES), BOX_RULES), BOX_RULES, warnings)


def check_results(
    results: Iterable[Mapping[str, Any]], truth: Mapping[str, Any], key: str, length: int
) -> tuple[str, ...]:
    """What is odd about results, in words.

    Args:
        key: of the values that count, `keypoints` or `bbox`.
        length: how many of them there have to be.

    Raises:
        ValueError: an entry that cannot be evaluated, named by its number.
    """
    known = {image["id"] for image in truth["images"]}
    seen: Counter[tuple[Any, ...]] = Counter()
    for number, entry in enumerate(results):
        where = f"results entry {number} (image_id {entry.get('image_id')})"
        if entry.get("image_id") not in known:
            raise ValueError(f"{where}: the annotations have no such image")
        values = entry.get(key)
        if values is None or len(values) != length:
            found = "no" if values is None else len(values)
            raise ValueError(f"{where}: {found} values in {key!r}, expected {length}")
        if "score" not in entry:
            raise ValueError(f"{where}: no score; average precision needs one for every entry")
        if not all(math.isfinite(v) for v in (*values, entry["score"])):
            raise ValueError(f"{where}: {key!r} or score is not finite")
        seen[(entry["image_id"], entry["score"], *values)] += 1
    twice = sum(count - 1 for count in seen.values())
    return (f"{twice} results entries are there more than once; COCO counts each as a person found",) if twice else ()


def scenes_of(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], rules: Rules, num_joints: int = 0
) -> list[Scene]:
    """All images of the annotations, by id.

    Args:
        num_joints: of the skeleton; 0 to compare boxes.
    """
    annotated: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    found: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for entry in truth["annotations"]:
        if entry.get("category_id", PERSON) == PERSON and entry["image_id"] in annotated:
            annotated[entry["image_id"]].append(entry)
    for entry in results:
        if entry.get("category_id", PERSON) == PERSON:
            found[entry["image_id"]].append(entry)
    return [
        Scene(_annotated(annotated[number], num_joints), _found(found[number], rules.most, num_joints))
        for number in sorted(annotated)
    ]


def _annotated(entries: Sequence[Mapping[str, Any]], num_joints: int) -> Annotated:
    crowd = np.array([bool(e.get("iscrowd")) for e in entries], bool)
    nobody = [num_joints > 0 and e.get("num_keypoints", 0) == 0 for e in entries]
    # Annotations of boxes alone have no keypoints, and are nobody to find in a comparison of poses.
    none = [0.0] * (3 * num_joints)
    keypoints = [e.get("keypoints") or none if num_joints else none for e in entries]
    return Annotated(
        np.array([e["bbox"] for e in entries], float).reshape(-1, 4),
        np.array([e["area"] for e in entries], float),
        crowd,
        crowd | np.array(nobody, bool),
        np.array(keypoints, float).reshape(len(entries), num_joints, 3),
    )


def _found(entries: Sequence[Mapping[str, Any]], most: int, num_joints: int) -> Found:
    scores = np.array([e["score"] for e in entries], float)
    order = best_first(scores, most)
    entries = [entries[i] for i in order]
    if num_joints:
        keypoints = np.array([e["keypoints"] for e in entries], float).reshape(-1, num_joints, 3)[..., :2]
        # An empty array has no smallest element.
        first, last = (keypoints.min(axis=1), keypoints.max(axis=1)) if len(entries) else (keypoints[:, 0],) * 2
        boxes = np.concatenate([first, last - first], axis=1)
    else:
        boxes = np.array([e["bbox"] for e in entries], float).reshape(-1, 4)
        keypoints = np.zeros((len(entries), 0, 2))
    return Found(boxes, boxes[:, 2] * boxes[:, 3], scores[order], keypoints)


def match_scenes(scenes: Sequence[Scene], rules: Rules, sigmas: np.ndarray | None = None) -> Matches:
    """Match the people of images; those of several groups, joined in order, are those of all.

    Args:
        sigmas: (K,) to compare keypoints; None for boxes.
    """
    parts = []
    for annotated, found in scenes:
        if sigmas is None:
            similarity = box_similarity(annotated, found)
        else:
            similarity = keypoint_similarity(annotated, found, sigmas)
        parts.append(match(annotated, found, similarity, rules))
    return join(parts, len(rules.areas))


def _evaluation(matches: Matches, rules: Rules, warnings: tuple[str, ...]) -> Evaluation:
    curves = accumulate(matches, list(rules.areas))
    return Evaluation(Metrics.of(curves), curves, warnings)


def _load(source: Any) -> Any:
    return json.loads(storage.read_bytes(source)) if isinstance(source, str) else source
