"""People found, missed and invented at the score threshold of a run: its operating point on the precision-recall curve.

AP hardly changes with the number of false positives of low scores; precision, recall and false positives per image do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.evaluation.intervals import Estimate, resamples
from pipeline.evaluation.matching import Matches, unpack


@dataclass(frozen=True)
class OperatingPoint:
    """Counts of people in each of I images.

    Attributes:
        annotated: (I,) annotated people that count.
        found: (I,) number of these that a detection matches.
        false_positives: (I,) detections that match no annotated person; those of ignored people are left out.
    """

    annotated: np.ndarray
    found: np.ndarray
    false_positives: np.ndarray

    @classmethod
    def of(cls, matches: Matches) -> OperatingPoint:
        """From the matches at the lowest similarity, 0.5, of the first subset."""
        matched, ignored = unpack(matches.matched[0])[0], unpack(matches.ignored[0])[0]
        image = np.repeat(np.arange(len(matches.detections)), matches.detections)
        right, wrong = (
            np.bincount(image[chosen], minlength=len(matches.detections))
            for chosen in (matched & ~ignored, ~matched & ~ignored)
        )
        return cls(matches.people[0].astype(int), right, wrong)

    @property
    def missed(self) -> np.ndarray:
        """(I,) annotated people without a detection."""
        return self.annotated - self.found

    @cached_property
    def precision(self) -> Estimate:
        """Share of the detections that are annotated people."""
        return _share(self.found, self.found + self.false_positives)

    @cached_property
    def recall(self) -> Estimate:
        """Share of the annotated people that are found."""
        return _share(self.found, self.annotated)

    @cached_property
    def false_positives_per_image(self) -> Estimate:
        return _rate(self.false_positives, np.ones(len(self.annotated), int))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if there are neither people nor detections."""
        found = int(self.found.sum())
        return _ratio(2 * found, int(self.annotated.sum()) + found + int(self.false_positives.sum()))

    def line(self) -> str:
        """As a line of text for a terminal."""
        annotated, found, wrong = (int(c.sum()) for c in (self.annotated, self.found, self.false_positives))
        return (
            f"{found} of {annotated} people found, {annotated - found} missed, {wrong} false positives; "
            f"recall {self.recall:.3f}, precision {self.precision:.3f}, "
            f"false positives per image {self.false_positives_per_image:.2f}"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values; intervals of 95 %, null where a value is not defined."""
        counts = {name: int(getattr(self, name).sum()) for name in ("annotated", "found", "missed", "false_positives")}
        estimates = ("precision", "recall", "false_positives_per_image")
        return counts | {name: estimate_to_json(getattr(self, name)) for name in estimates}


def mean_f1(matches: Matches) -> float:
    """F1, the harmonic mean of precision and recall, at the threshold of the run; NaN without people and detections.

    Mean over the similarities 0.50:0.05:0.95 as for AP. Unlike AP, every detection counts the same whatever its score.
    """
    matched, ignored = unpack(matches.matched[0]), unpack(matches.ignored[0])
    right, wrong = (matched & ~ignored).sum(axis=1), (~matched & ~ignored).sum(axis=1)
    people = int(matches.people[0].sum())
    return float(np.mean([_ratio(2 * r, people + r + w) for r, w in zip(right, wrong, strict=True)]))


def join_points(parts: Sequence[OperatingPoint]) -> OperatingPoint:
    """The counts of several groups of images, in their order."""
    return OperatingPoint(
        *(np.concatenate(c) for c in zip(*((p.annotated, p.found, p.false_positives) for p in parts), strict=True))
    )


def estimate_to_json(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: value if np.isfinite(value) else None for name, value in estimate._asdict().items()}


def _share(part: np.ndarray, whole: np.ndarray) -> Estimate:
    """The share of a part in its whole, both (I,) counts by image; the interval ends at 0 and 1."""
    estimate, rest = _rate(part, whole), _rate(whole - part, whole)
    low, high = max(0.0, min(estimate.low, 1 - rest.high)), min(1.0, estimate.high)
    return Estimate(estimate.value, low, high) if whole.any() else estimate


def _rate(events: np.ndarray, units: np.ndarray) -> Estimate:
    """Events per unit, both (I,) counts by image.

    Resamples of no event have none either, so its upper limit is 3 / number of images with units (the rule of three:
    Hanley and Lippman-Hand, JAMA 1983).
    """
    value = _ratio(events.sum(), units.sum())
    estimate = Estimate.of(value, (_ratio(events @ weights, units @ weights) for weights in resamples(len(units))))
    return estimate if events.any() or not units.any() else estimate._replace(high=3 / int((units > 0).sum()))


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
