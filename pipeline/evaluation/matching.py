"""Match detections to ground truth, image by image, by COCO's rules.

Lin et al., Microsoft COCO, ECCV 2014; https://cocodataset.org/#detection-eval and #keypoints-eval. The order of
arithmetic is that of pycocotools 2.0, so that numbers agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.coco.columns import Detections, GroundTruth

THRESHOLDS = np.linspace(0.5, 0.95, 10)
# A similarity of exactly 1 must meet a threshold of 1.
_MEETS = np.minimum(THRESHOLDS, 1 - 1e-10)
_BITS = (1 << np.arange(len(THRESHOLDS))).astype(np.uint16)


class Rules(NamedTuple):
    """The people and detections that count.

    Attributes:
        areas: limits in square pixels by name of the range of people's areas.
        max_detections: maximum per image; the detections with the highest scores count.
    """

    areas: Mapping[str, tuple[float, float]]
    max_detections: int


_MEDIUM, _LARGE, _ANY = 32.0**2, 96.0**2, 1e5**2
KEYPOINT_RULES = Rules({"all": (0, _ANY), "medium": (_MEDIUM, _LARGE), "large": (_LARGE, _ANY)}, 20)
BOX_RULES = Rules({"all": (0, _ANY), "small": (0, _MEDIUM), "medium": (_MEDIUM, _LARGE), "large": (_LARGE, _ANY)}, 100)


class SubsetMasks(NamedTuple):
    """The people of an image that belong to each of S evaluated subsets.

    Attributes:
        ignored: (S, G) bool, ground truth that counts neither as detected nor as missed.
        ignored_unmatched: (S, D) bool, detections that do not count as false positives.
    """

    ignored: np.ndarray
    ignored_unmatched: np.ndarray


class Matches(NamedTuple):
    """The outcome for the detections of some images, each image's best first, images in order.

    Attributes:
        scores: (N,).
        matched: (S, N) uint16; bit t is set if the detection matches at threshold t.
        ignored: (S, N) uint16; bit t is set if the detection counts neither as right nor as wrong.
        people: (S, I) number of people that count in each image.
        detections: (I,) number of detections of each image.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    people: np.ndarray
    detections: np.ndarray

    def of(self, subsets: slice) -> Matches:
        """The matches of some of the subsets."""
        return self._replace(matched=self.matched[subsets], ignored=self.ignored[subsets], people=self.people[subsets])


def keypoint_similarity(ground_truth: GroundTruth, detections: Detections, sigmas: np.ndarray) -> np.ndarray:
    """(D, G) object keypoint similarity (OKS).

    For a person without labelled joints, the distance of the joints from the box, extended by its size on every side.

    Args:
        sigmas: (K,) of the joints.
    """
    similarity = np.zeros((len(detections.scores), len(ground_truth.areas)))
    variances = (sigmas * 2) ** 2
    for person, (box_xywh, area, joints) in enumerate(
        zip(ground_truth.boxes_xywh, ground_truth.areas, ground_truth.keypoints, strict=True)
    ):
        labelled = joints[:, 2] > 0
        if labelled.any():
            distance = detections.keypoints - joints[:, :2]
        else:
            first, last = box_xywh[:2] - box_xywh[2:], box_xywh[:2] + box_xywh[2:] * 2
            distance = np.maximum(0, first - detections.keypoints) + np.maximum(0, detections.keypoints - last)
            labelled[:] = True
        squared = distance[..., 0] ** 2 + distance[..., 1] ** 2
        exponent = (squared / variances / (area + np.spacing(1)) / 2)[:, labelled]
        similarity[:, person] = np.exp(-exponent).sum(axis=1) / exponent.shape[1]
    return similarity


def box_similarity(ground_truth: GroundTruth, detections: Detections) -> np.ndarray:
    """(D, G) intersection over union; for a crowd, intersection over the area of the detection.

    Computed from x y width height, as pycocotools does: the last bit depends on it.
    """
    a, b = detections.boxes_xywh[:, None], ground_truth.boxes_xywh[None]
    sides = np.minimum(a[..., 2:] + a[..., :2], b[..., 2:] + b[..., :2]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.where((sides > 0).all(axis=2), sides[..., 0] * sides[..., 1], 0.0)
    detection_area, truth_area = a[..., 2] * a[..., 3], b[..., 2] * b[..., 3]
    union = np.where(ground_truth.crowd, detection_area, detection_area + truth_area - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)


def subsets_by_area(ground_truth: GroundTruth, detections: Detections, rules: Rules) -> SubsetMasks:
    """One subset for each range of areas."""
    ranges = np.array(list(rules.areas.values()))[:, :, None]
    truth_outside = (ground_truth.areas < ranges[:, 0]) | (ground_truth.areas > ranges[:, 1])
    detection_outside = (detections.areas < ranges[:, 0]) | (detections.areas > ranges[:, 1])
    return SubsetMasks(truth_outside | ground_truth.ignored, detection_outside)


def match(crowd: np.ndarray, scores: np.ndarray, similarity: np.ndarray, subsets: SubsetMasks) -> Matches:
    """Match the detections of an image, in order of descending score.

    Args:
        crowd: (G,) of the ground truth.
        scores: (D,) of the detections, descending.
        similarity: (D, G).
        subsets: all evaluated at once.
    """
    ignored, ignored_unmatched = subsets
    shape = (len(ignored), len(THRESHOLDS), len(scores))
    matched, not_counted = np.zeros(shape, bool), np.zeros(shape, bool)
    if len(crowd):
        free = np.ones((len(ignored), len(THRESHOLDS), len(crowd)), bool)
        for d, similar in enumerate(similarity):
            if similar.max() >= THRESHOLDS[0]:
                _match_detection(similar, free, crowd, ignored, matched[..., d], not_counted[..., d])
    not_counted |= ~matched & ignored_unmatched[:, None]
    people = (~ignored).sum(axis=1, keepdims=True).astype(np.int32)
    return Matches(scores, _pack(matched), _pack(not_counted), people, np.array([len(scores)], np.int32))


def _match_detection(
    similar: np.ndarray,
    free: np.ndarray,
    crowd: np.ndarray,
    ignored: np.ndarray,
    matched: np.ndarray,
    not_counted: np.ndarray,
) -> None:
    """Match one detection to the most similar free person (the last one of a tie); people that count come first."""
    able = (similar >= _MEETS[:, None]) & (free | crowd)
    counting = able & ~ignored[:, None]
    pool = np.where(counting.any(axis=2, keepdims=True), counting, able)
    backwards = np.where(pool, similar, -1.0)[..., ::-1]
    chosen = len(similar) - 1 - backwards.argmax(axis=2)
    matched[:] = pool.any(axis=2)
    subset, threshold = np.nonzero(matched)
    person = chosen[subset, threshold]
    free[subset, threshold, person] = False
    not_counted[subset, threshold] = ignored[subset, person]


def _pack(flags: np.ndarray) -> np.ndarray:
    """(S, T, D) bool as (S, D) bits."""
    return np.einsum("std,t->sd", flags.astype(np.uint16), _BITS)


def unpack(bits: np.ndarray) -> np.ndarray:
    """(N,) bits as (T, N) bool."""
    return (bits & _BITS[:, None]) != 0


def join(parts: Sequence[Matches]) -> Matches:
    """The matches of several groups of images, at least one, in their order."""
    return Matches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.matched for part in parts], axis=1),
        np.concatenate([part.ignored for part in parts], axis=1),
        np.concatenate([part.people for part in parts], axis=1),
        np.concatenate([part.detections for part in parts]),
    )
