"""Ground truth and detections side by side, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.coco.annotations import Annotations, group_by_image
from pipeline.coco.columns import Detections, GroundTruth


class EvalImage(NamedTuple):
    """The ground truth of one image, and its detections by descending score."""

    ground_truth: GroundTruth
    detections: Detections


@dataclass(frozen=True)
class EvalImages:
    """Several images, as columns over all their people.

    Attributes:
        ids: (I,) image ids, ascending.
        ground_truth, detections: of all images, image after image; detections of an image by descending score.
        truth_starts, detection_starts: (I + 1,) where the people of each image start.
        labels: (I,) label number of each image by grouping name, see `pipeline.evaluation.groups`.
    """

    ids: np.ndarray
    ground_truth: GroundTruth
    truth_starts: np.ndarray
    detections: Detections
    detection_starts: np.ndarray
    labels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[EvalImage]:
        g, d = self.truth_starts, self.detection_starts
        for i in range(len(self)):
            yield EvalImage(self.ground_truth.rows(slice(g[i], g[i + 1])), self.detections.rows(slice(d[i], d[i + 1])))

    def chunks(self, size: int) -> Iterator[EvalImages]:
        """Chunks of `size` images, in their order."""
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            g, d = self.truth_starts[start : end + 1], self.detection_starts[start : end + 1]
            yield EvalImages(
                self.ids[start:end],
                self.ground_truth.rows(slice(g[0], g[-1])),
                g - g[0],
                self.detections.rows(slice(d[0], d[-1])),
                d - d[0],
                {name: numbers[start:end] for name, numbers in self.labels.items()},
            )


def pair(
    annotations: Annotations,
    image_ids: np.ndarray,
    detections: Detections,
    max_detections: int,
    labels: Mapping[str, np.ndarray] | None = None,
) -> EvalImages:
    """Put detections beside the ground truth of their images.

    Args:
        annotations: all images; detections in other images are left out.
        image_ids: (N,) of the detections.
        detections: in any order; those of equal score keep their order.
        max_detections: maximum per image; the detections with the highest scores count.
        labels: see `EvalImages`.
    """
    rows, starts = group_by_image(annotations.ids, image_ids, -detections.scores)
    rank = np.arange(len(rows)) - np.repeat(starts[:-1], np.diff(starts))
    rows = rows[rank < max_detections]
    starts = np.concatenate([[0], np.cumsum(np.minimum(np.diff(starts), max_detections))])
    return EvalImages(
        annotations.ids, annotations.people, annotations.starts, detections.rows(rows), starts, labels or {}
    )
