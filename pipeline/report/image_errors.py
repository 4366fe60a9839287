"""The errors of each image of a run that is compared with annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.coco.annotations import Annotations, read_annotations
from pipeline.coco.ids import CocoIds
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.errors import JOINT_ERRORS, ErrorAnalysis
from pipeline.run.statistics import Statistics
from pipeline.skeletons import Skeleton


@dataclass(frozen=True)
class ImageErrors:
    """The errors of the images of the tables.

    Attributes:
        errors: of all annotated images.
        rows: (I,) of each image of the tables, its row in `errors.images`; -1 without annotations.
        truth: the annotated images, in the order of `errors.images`.
    """

    errors: ErrorAnalysis
    rows: np.ndarray
    truth: Annotations

    @classmethod
    def of(cls, metrics: RunMetrics | None, statistics: Statistics, skeleton: Skeleton) -> ImageErrors | None:
        """None without an error analysis."""
        if metrics is None or metrics.keypoints is None or metrics.keypoints.analysis is None:
            return None
        truth, ids = evaluated_truth(metrics, statistics.ids, skeleton)
        numbers = np.array([-1 if (number := ids.get(i)) is None else number for i in statistics.ids])
        rows = np.where(numbers >= 0, np.searchsorted(truth.ids, numbers), -1)
        return cls(metrics.keypoints.analysis.errors, rows, truth)

    @property
    def costs(self) -> np.ndarray:
        """(I,) cost in people: missed people + false positives + (1 - OKS) of each person found; 0 if unknown."""
        columns = self.errors.images
        found = columns["annotated"] - columns["missed"]
        costs = columns["annotated"] + columns["background"] - found * np.nan_to_num(columns["similarity"])
        return np.where(self.rows >= 0, costs[self.rows], 0.0)

    def column(self, name: str) -> np.ndarray:
        """(I,) a column of `errors.images` for the images of the tables; 0 without annotations."""
        return np.where(self.rows >= 0, self.errors.images[name][self.rows], 0.0)

    def image(self, row: int) -> dict[str, float] | None:
        """The errors of an image of the tables; None if it has no annotations."""
        number = int(self.rows[row])
        return None if number < 0 else {name: float(values[number]) for name, values in self.errors.images.items()}

    def describe(self, row: int) -> str:
        """The errors of an image of the tables as text."""
        image = self.image(row)
        return "not annotated" if image is None else describe(image)


def evaluated_truth(
    metrics: RunMetrics, image_ids: list[str], skeleton: Skeleton | None
) -> tuple[Annotations, CocoIds[int]]:
    """The annotated images that the metrics are of, and the ids of the run's images."""
    truth = read_annotations(metrics.annotations, skeleton)
    ids = truth.match_ids(image_ids)
    return (truth.select(ids.by_key.values()) if metrics.only_images_in_run else truth), ids


def describe(image: Mapping[str, Any]) -> str:
    """The errors of an image as text."""
    parts = []
    if image["missed"]:
        parts.append(f"{image['missed']:.0f} of {image['annotated']:.0f} people missed")
    if image["background"]:
        parts.append(f"{image['background']:.0f} false positive{'s' if image['background'] > 1 else ''}")
    wrong = [f"{image[kind]:.0f} {kind}" for kind in JOINT_ERRORS if image[kind]]
    if wrong:
        parts.append(f"joints: {', '.join(wrong)}")
    if not math.isnan(image["similarity"]):
        parts.append(f"OKS {image['similarity']:.2f}")
    return "; ".join(parts) or "no errors"
