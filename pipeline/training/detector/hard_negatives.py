"""Images in which a detector finds people where there are none: they are drawn more often."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.boxes import shares_of_smaller
from pipeline.detectors import Detector
from pipeline.training.detector.data import BoxLabels, ImageSet

MISTAKE_CONFIDENCE = 0.3  # minimum score of a detection that counts
_ELSEWHERE = 0.1  # with a larger share of the smaller box in common with a person, a detection is merely inaccurate
_MOST = 5  # an image with more counts as one with so many: its labels may be incomplete


def false_positives(boxes: np.ndarray, people: BoxLabels) -> int:
    """The number of detections (N, 4) x1 y1 x2 y2 that show nobody: away from all people and ignored regions."""
    return int((shares_of_smaller(boxes, np.concatenate(people)) < _ELSEWHERE).all(axis=1).sum())


def mined_weights(images: ImageSet, detector: Detector, extra: float) -> np.ndarray:
    """How often each image is drawn, (N,) float32: its weight, times 1 + `extra` for each false positive, of 5 at most.

    Args:
        detector: whose mistakes count, with a confidence of `MISTAKE_CONFIDENCE`.
        extra: at least 0.
    """
    found = zip(_detections(images, detector), images.people, strict=True)
    counts = np.array([min(_MOST, false_positives(boxes, people)) for boxes, people in found])
    return (images.weights * (1 + extra * counts)).astype(np.float32)


def _detections(images: ImageSet, detector: Detector) -> Iterator[np.ndarray]:
    for start in range(0, len(images), detector.batch):
        rows = range(start, min(start + detector.batch, len(images)))
        for found in detector.detect([images.pixels(row) for row in rows]):
            yield found.xyxy
