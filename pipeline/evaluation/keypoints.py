"""The COCO numbers of keypoints and person boxes, computed by faster-coco-eval, pycocotools' within rounding."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from pipeline import storage
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


def evaluate_keypoints(
    results: str | Sequence[Mapping[str, Any]], annotations: str | Mapping[str, Any], skeleton: Skeleton
) -> Metrics:
    """The ten COCO keypoint numbers over all images of the annotations.

    Args:
        results: COCO keypoint results, or a URI of them: image_id, category_id 1, keypoints [x, y, score] * K, score.
        annotations: COCO keypoint annotations, or a URI of them.
        skeleton: joints and OKS sigmas.

    Raises:
        ValueError: an entry that cannot be evaluated, named by its number.
    """
    truth, found = _load(annotations), _load(results)
    _check(found, truth, "keypoints", 3 * len(skeleton))
    curves = _evaluate(truth, found, "keypoints", list(skeleton.oks_sigmas))
    measurable = any(not a.get("iscrowd") and a.get("num_keypoints", 0) > 0 for a in truth["annotations"])
    return _metrics(curves, measurable)


def evaluate_boxes(results: str | Sequence[Mapping[str, Any]], annotations: str | Mapping[str, Any]) -> Metrics:
    """The COCO numbers of person boxes, with at most 100 boxes an image.

    Args:
        results: COCO detection results, or a URI of them: image_id, category_id 1, bbox [x, y, w, h], score.
        annotations: COCO annotations, or a URI of them.
    """
    truth, found = _load(annotations), _load(results)
    _check(found, truth, "bbox", 4)
    curves = _evaluate(truth, found, "bbox", None)
    return _metrics(curves, any(not a.get("iscrowd") for a in truth["annotations"]))


def _load(source: Any) -> Any:
    return json.loads(storage.read_bytes(source)) if isinstance(source, str) else source


def _check(results: Iterable[Mapping[str, Any]], truth: Mapping[str, Any], key: str, length: int) -> None:
    known = {image["id"] for image in truth["images"]}
    for number, entry in enumerate(results):
        where = f"results entry {number} (image_id {entry.get('image_id')})"
        if entry.get("image_id") not in known:
            raise ValueError(f"{where}: the annotations have no such image")
        values = entry.get(key)
        if values is None or len(values) != length:
            found = "no" if values is None else len(values)
            raise ValueError(f"{where}: {found} values in {key!r}, expected {length}")
        if not all(math.isfinite(v) for v in (*values, entry.get("score", math.nan))):
            raise ValueError(f"{where}: {key!r} or score is not finite")


def _evaluate(
    truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]], kind: str, sigmas: list[float] | None
) -> _Curves | None:
    """Match and accumulate; None without results, which cannot be accumulated."""
    if not found:
        return None
    ground = COCO(truth)
    detections = ground.loadRes([dict(entry) for entry in found])
    evaluation = COCOeval_faster(ground, detections, kind, kpt_oks_sigmas=sigmas)
    evaluation.params.catIds = [PERSON]
    evaluation.evaluate()
    evaluation.accumulate()
    return _Curves(evaluation)


class _Curves:
    """Accumulated precision and recall, averaged as pycocotools does."""

    def __init__(self, evaluation: COCOeval_faster) -> None:
        self._params = evaluation.params
        self._precision = np.asarray(evaluation.eval["precision"])  # thresholds, recalls, categories, areas, limits
        self._recall = np.asarray(evaluation.eval["recall"])  # thresholds, categories, areas, limits

    def mean(self, what: str, area: str = "all", threshold: float | None = None) -> float:
        """Mean over what the annotations define; -1 where that is nothing."""
        area_index = self._params.areaRngLbl.index(area)
        values = self._precision[..., area_index, -1] if what == "precision" else self._recall[..., area_index, -1]
        if threshold is not None:
            values = values[np.where(threshold == self._params.iouThrs)[0]]
        values = values[values > -1]
        return float(np.mean(values)) if values.size else -1.0


def _metrics(curves: _Curves | None, measurable: bool) -> Metrics:
    if curves is None:
        return Metrics(*[0.0 if measurable else -1.0] * 10)
    return Metrics(
        *(
            curves.mean(what, area, threshold)
            for what in ("precision", "recall")
            for area, threshold in (("all", None), ("all", 0.5), ("all", 0.75), ("medium", None), ("large", None))
        )
    )
