"""The COCO numbers of keypoints and person boxes, pycocotools' to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from pipeline.evaluation.curves import Curves, accumulate
from pipeline.evaluation.matching import (
    BOX_RULES,
    KEYPOINT_RULES,
    Matches,
    Rules,
    box_similarity,
    by_area,
    join,
    keypoint_similarity,
    match,
)
from pipeline.evaluation.results import read_results
from pipeline.evaluation.scenes import Scenes, pair
from pipeline.evaluation.truth import read_truth
from pipeline.skeletons import Skeleton


@dataclass(frozen=True)
class Metrics:
    """COCO's average precision and recall, in 0..1; -1 where the annotations have nothing to measure.

    `ap` and `ar` average over similarity 0.50:0.05:0.95, `ap50` is at 0.50, `ap_m` and `ap_l` are of medium and large
    people (area 32^2 to 96^2, and above).

    Attributes:
        curves: precision and recall behind the numbers.
        warnings: what was odd about the results though COCO tolerates it.
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
        """The numbers of all images' matches, one question for each range of areas."""
        curves = accumulate(matches, list(rules.areas))
        wanted = (("all", None), ("all", 0.5), ("all", 0.75), ("medium", None), ("large", None))
        values = [curves.mean(v, *what) for v in (curves.precision, curves.recall) for what in wanted]
        named = {f.name: value for f, value in zip(fields(cls), values, strict=False)}
        return cls(curves=curves, warnings=warnings, **named)

    @property
    def numbers(self) -> dict[str, float]:
        """The ten by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)[:10]}


def evaluate_keypoints(
    results: str | Iterable[Mapping[str, Any]], annotations: str | Mapping[str, Any], skeleton: Skeleton
) -> Metrics:
    """The ten COCO keypoint numbers over all images of the annotations.

    Args:
        results: COCO keypoint results, or a URI of them: image_id, category_id 1, keypoints [x, y, score] * K, score.
        annotations: COCO keypoint annotations, or a URI of them.
        skeleton: joints and OKS sigmas.

    Raises:
        ValueError: an entry that cannot be evaluated, named by its number.
    """
    truth = read_truth(annotations, skeleton)
    image_ids, found, warnings = read_results(results, truth.ids, skeleton)
    scenes = pair(truth, image_ids, found, KEYPOINT_RULES.most)
    return Metrics.of(match_keypoints(scenes, skeleton), KEYPOINT_RULES, warnings)


def evaluate_boxes(results: str | Iterable[Mapping[str, Any]], annotations: str | Mapping[str, Any]) -> Metrics:
    """The COCO numbers of person boxes, with at most 100 boxes an image.

    Args:
        results: COCO detection results, or a URI of them: image_id, category_id 1, bbox [x, y, w, h], score.
        annotations: COCO annotations, or a URI of them.

    Raises:
        ValueError: an entry that cannot be evaluated, named by its number.
    """
    truth = read_truth(annotations, None)
    image_ids, found, warnings = read_results(results, truth.ids, None)
    return Metrics.of(match_boxes(pair(truth, image_ids, found, BOX_RULES.most)), BOX_RULES, warnings)


def match_keypoints(scenes: Scenes, skeleton: Skeleton) -> Matches:
    """Match poses by OKS; those of groups of images, joined in their order, are those of all."""
    sigmas = np.array(skeleton.oks_sigmas)
    return join(
        [match(a.crowd, f.scores, keypoint_similarity(a, f, sigmas), by_area(a, f, KEYPOINT_RULES)) for a, f in scenes]
    )


def match_boxes(scenes: Scenes) -> Matches:
    """Match boxes by their overlap, likewise."""
    return join([match(a.crowd, f.scores, box_similarity(a, f), by_area(a, f, BOX_RULES)) for a, f in scenes])
