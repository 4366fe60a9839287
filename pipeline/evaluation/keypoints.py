"""The COCO metrics of keypoints and person boxes, equal to pycocotools' to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from pipeline.coco.annotations import read_annotations
from pipeline.coco.results import read_results
from pipeline.evaluation.curves import Curves, accumulate
from pipeline.evaluation.eval_images import EvalImages, pair
from pipeline.evaluation.matching import (
    BOX_RULES,
    KEYPOINT_RULES,
    Matches,
    Rules,
    box_similarity,
    join,
    keypoint_similarity,
    match,
    subsets_by_area,
)
from pipeline.skeletons import Skeleton


@dataclass(frozen=True)
class Metrics:
    """COCO's average precision and recall, in 0..1; -1 if the annotations have nothing to measure.

    `ap` and `ar` are means over similarity 0.50:0.05:0.95, `ap50` is at 0.50, `ap_m` and `ap_l` are of medium and large
    people (area 32^2 to 96^2, and above).

    Attributes:
        curves: precision and recall behind the numbers.
        warnings: oddities of the results that COCO tolerates.
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
    curves: Curves = field(repr=False, compare=False)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, matches: Matches, rules: Rules, warnings: tuple[str, ...] = ()) -> Metrics:
        """The metrics of the matches of all images, with one subset for each range of areas."""
        curves = accumulate(matches, list(rules.areas))
        wanted = (("all", None), ("all", 0.5), ("all", 0.75), ("medium", None), ("large", None))
        values = [curves.mean(v, *what) for v in (curves.precision, curves.recall) for what in wanted]
        named = {f.name: value for f, value in zip(fields(cls), values, strict=False)}
        return cls(curves=curves, warnings=warnings, **named)

    @property
    def numbers(self) -> dict[str, float]:
        """The ten numbers by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)[:10]}


def evaluate_keypoints(
    results: str | Iterable[Mapping[str, Any]], annotations: str | Mapping[str, Any], skeleton: Skeleton
) -> Metrics:
    """The ten COCO keypoint metrics over all images of the annotations.

    Args:
        results: COCO keypoint results, or a URI of them: image_id, category_id, keypoints [x, y, score] * K, score.
        annotations: COCO keypoint annotations, or a URI of them.
        skeleton: joints and OKS sigmas.

    Raises:
        UserError: an entry that cannot be evaluated; the message has its number.
    """
    truth = read_annotations(annotations, skeleton)
    image_ids, detections, warnings = read_results(results, truth, skeleton)
    images = pair(truth, image_ids, detections, KEYPOINT_RULES.max_detections)
    return Metrics.of(match_keypoints(images, skeleton), KEYPOINT_RULES, warnings)


def evaluate_boxes(results: str | Iterable[Mapping[str, Any]], annotations: str | Mapping[str, Any]) -> Metrics:
    """The COCO metrics of person boxes, with at most 100 boxes per image.

    Args:
        results: COCO detection results, or a URI of them: image_id, category_id, bbox [x, y, w, h], score.
        annotations: COCO annotations, or a URI of them.

    Raises:
        UserError: an entry that cannot be evaluated; the message has its number.
    """
    truth = read_annotations(annotations, None)
    image_ids, detections, warnings = read_results(results, truth, None)
    images = pair(truth, image_ids, detections, BOX_RULES.max_detections)
    return Metrics.of(match_boxes(images), BOX_RULES, warnings)


def match_keypoints(images: EvalImages, skeleton: Skeleton) -> Matches:
    """Match poses by OKS. Matches of chunks of images, joined in their order, are those of all images."""
    sigmas = np.array(skeleton.oks_sigmas)
    return join(
        [
            match(g.crowd, d.scores, keypoint_similarity(g, d, sigmas), subsets_by_area(g, d, KEYPOINT_RULES))
            for g, d in images
        ]
    )


def match_boxes(images: EvalImages) -> Matches:
    """Match boxes by their overlap; chunks join likewise."""
    return join([match(g.crowd, d.scores, box_similarity(g, d), subsets_by_area(g, d, BOX_RULES)) for g, d in images])
