"""People found, missed and invented at the score threshold of a run: its operating point on the precision-recall curve.

AP hardly changes with the number of false positives of low scores; precision, recall and false positives per image do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pipeline.evaluation.intervals import Estimate, resamples
from pipeline.evaluation.matching import Matches, unpack


class Rates(NamedTuple):
    """See `OperatingPoint`; NaN where nothing is counted."""

    precision: float
    recall: float
    false_positives_per_image: float


_COUNTS = ("annotated", "found", "missed", "false_positives", "not_judged")


@dataclass(frozen=True)
class OperatingPoint:
    """Counts of people in each of I images.

    Attributes:
        annotated: (I,) annotated people that count.
        found: (I,) number of these that a detection matches.
        false_positives: (I,) detections that match no annotated person.
        not_judged: (I,) other detections: of crowds, and of people that do not count.
    """

    annotated: np.ndarray
    found: np.ndarray
    false_positives: np.ndarray
    not_judged: np.ndarray

    @classmethod
    def of(cls, matches: Matches) -> OperatingPoint:
        """From the matches at the lowest similarity, 0.5, of the first subset."""
        matched, ignored = unpack(matches.matched[0])[0], unpack(matches.ignored[0])[0]
        image = np.repeat(np.arange(len(matches.detections)), matches.detections)
        right, wrong, others = (
            np.bincount(image[chosen], minlength=len(matches.detections))
            for chosen in (matched & ~ignored, ~matched & ~ignored, ignored)
        )
        return cls(matches.people[0].astype(int), right, wrong, others)

    @property
    def missed(self) -> np.ndarray:
        """(I,) annotated people without a detection."""
        return self.annotated - self.found

    @property
    def detected(self) -> np.ndarray:
        """(I,) detections that are judged."""
        return self.found + self.false_positives

    @property
    def rates(self) -> Rates:
        """Precision, recall and false positives per image, without their intervals."""
        wrong = self.false_positives
        return Rates(
            _ratio(self.found.sum(), self.detected.sum()),
            _ratio(self.found.sum(), self.annotated.sum()),
            _ratio(wrong.sum(), len(wrong)),
        )

    @cached_property
    def precision(self) -> Estimate:
        """Share of the detections that are annotated people."""
        return _share(self.found, self.detected)

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
        counts = (self.annotated, self.found, self.false_positives, self.not_judged)
        annotated, found, wrong, others = (int(c.sum()) for c in counts)
        return (
            f"{found} of {annotated} people found, {annotated - found} missed, {wrong} false positives, "
            f"{others} detections not judged; recall {self.recall:.3f}, precision {self.precision:.3f}, "
            f"false positives per image {self.false_positives_per_image:.2f}"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values; intervals of 95 %, null where a value is not defined."""
        counts = {name: int(getattr(self, name).sum()) for name in _COUNTS}
        estimates = ("precision", "recall", "false_positives_per_image")
        return counts | {name: estimate_to_json(getattr(self, name)) for name in estimates}


def mean_f1(matches: Matches, weights: Iterable[np.ndarray] | None = None) -> Iterator[float]:
    """F1, the harmonic mean of precision and recall, at the threshold of the run; NaN without people and detections.

    Mean over the similarities 0.50:0.05:0.95 as for AP. Unlike AP, every detection counts the same whatever its score.

    Args:
        weights: (I,) how often each image counts, for each value that is wanted; by default one value of all images.
    """
    image = np.repeat(np.arange(len(matches.detections)), matches.detections)
    matched, ignored = unpack(matches.matched[0]), unpack(matches.ignored[0])
    shape = (len(matched), len(matches.detections))
    right, wrong = np.zeros(shape, int), np.zeros(shape, int)
    for row in range(len(matched)):
        right[row] = np.bincount(image[matched[row] & ~ignored[row]], minlength=shape[1])
        wrong[row] = np.bincount(image[~matched[row] & ~ignored[row]], minlength=shape[1])
    people = matches.people[0].astype(int)
    for weight in [np.ones(shape[1], int)] if weights is None else weights:
        whole = people @ weight + right @ weight + wrong @ weight
        yield float(np.mean([_ratio(2 * r, w) for r, w in zip(right @ weight, whole, strict=True)]))


def join_points(parts: Sequence[OperatingPoint]) -> OperatingPoint:
    """The counts of several groups of images, in their order."""
    names = [field.name for field in fields(OperatingPoint)]
    return OperatingPoint(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def estimate_to_json(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: value if np.isfinite(value) else None for name, value in estimate._asdict().items()}


def _share(part: np.ndarray, whole: np.ndarray) -> Estimate:
    """The share of a part in its whole, both (I,) counts by image; the interval ends at 0 and 1."""
    rest = whole - part
    if whole.any() and not rest.any():
        return Estimate(1.0, max(0.0, 1 - _rate(rest, whole).high), 1.0)
    value, low, high = _rate(part, whole)
    return Estimate(value, low, min(1.0, high) if np.isfinite(high) else high)


def _rate(events: np.ndarray, units: np.ndarray) -> Estimate:
    """Events per unit, both (I,) counts by image.

    Resamples of no event have none either, so its upper limit is 3 / number of images with units (the rule of three:
    Hanley and Lippman-Hand, JAMA 1983).
    """
    value = _ratio(events.sum(), units.sum())
    if not events.any():
        return Estimate(value, value, 3 / int((units > 0).sum()) if units.any() else float("nan"))
    return Estimate.of(value, (_ratio(events @ weights, units @ weights) for weights in resamples(len(units))))


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
