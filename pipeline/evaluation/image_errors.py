"""The errors of each image of a run that is compared with annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.coco.annotations import Annotations, read_annotations
from pipeline.coco.columns import GroundTruth
from pipeline.coco.ids import CocoIds
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.errors import JOINT_ERRORS, Diagnosis, ErrorAnalysis, diagnose
from pipeline.evaluation.eval_images import EvalImage
from pipeline.evaluation.matching import KEYPOINT_RULES
from pipeline.people import People
from pipeline.run.detections import pose_detections
from pipeline.run.statistics import Statistics
from pipeline.skeletons import Skeleton


@dataclass(frozen=True)
class TruthOfImages:
    """Annotated images, and the row of each image of a run in them.

    Attributes:
        rows: by image id, of the images that are annotated.
    """

    annotations: Annotations
    rows: Mapping[str, int]

    def of(self, image_id: str) -> GroundTruth | None:
        """The people annotated in an image; None if the image is not annotated."""
        row = self.rows.get(image_id)
        return None if row is None else self.annotations.slice(row, row + 1).people


@dataclass(frozen=True)
class ImageErrors:
    """The errors of the images of the tables.

    Attributes:
        errors: of all annotated images.
        rows: (I,) of each image of the tables, its row in `errors.images`; -1 without annotations.
        truth: the annotated images, in the order of `errors.images`.
        ids: of the images of the tables.
    """

    errors: ErrorAnalysis
    rows: np.ndarray
    truth: Annotations
    ids: CocoIds[int]

    @classmethod
    def of(cls, metrics: RunMetrics | None, statistics: Statistics, skeleton: Skeleton) -> ImageErrors | None:
        """None without an error analysis."""
        if metrics is None or metrics.keypoints is None or metrics.keypoints.analysis is None:
            return None
        errors = metrics.keypoints.analysis.errors
        truth = read_annotations(metrics.annotations, skeleton)
        ids = truth.match_ids(statistics.ids)
        truth = truth.select(errors.images["image_id"].tolist())  # some may have been left out
        row_of = {number: row for row, number in enumerate(truth.ids.tolist())}
        rows = np.array([row_of.get(ids.get(i), -1) for i in statistics.ids], int)
        return cls(errors, rows, truth, ids)

    @cached_property
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


def diagnose_people(people: People, truth: GroundTruth, skeleton: Skeleton) -> tuple[People, Diagnosis]:
    """The people of an image by descending pose score, and the diagnosis of those that COCO's rules count."""
    ordered = people[np.argsort(-people.pose_scores.astype(np.float64), kind="stable")]
    counted = ordered[: KEYPOINT_RULES.max_detections]
    return ordered, diagnose(EvalImage(truth, pose_detections([counted])), skeleton)


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
