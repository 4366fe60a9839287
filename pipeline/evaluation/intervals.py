"""Confidence intervals of metrics by resampling images (the bootstrap: Efron, Annals of Statistics 1979)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.curves import RECALLS
from pipeline.evaluation.matching import THRESHOLDS, Matches, unpack

RESAMPLES = 200
_PERCENTILES = (2.5, 97.5)


class Estimate(NamedTuple):
    """A value and its 95 % confidence interval; NaN if it is not defined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Iterable[float]) -> Estimate:
        """A value and its interval from values over resampled images; undefined ones (NaN) are left out."""
        values = np.array(list(resampled), float)
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, _PERCENTILES) if len(values) else (np.nan, np.nan)
        return cls(value, float(low), float(high))

    def __format__(self, spec: str) -> str:
        """
        >>> f"{Estimate(0.5, 0.4, 0.62):.2f}"
        '0.50 (0.40 to 0.62)'
        """
        value, low, high = (format(number, spec) for number in self)
        return f"{value} ({low} to {high})" if np.isfinite(self.low) else value


def resamples(num_images: int) -> Iterator[np.ndarray]:
    """(I,) how often each image is drawn, for each of `RESAMPLES` resamples with replacement.

    The same number of images gives the same resamples: differences between runs on the same images are paired.
    """
    r = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        yield np.bincount(r.integers(num_images, size=num_images), minlength=num_images)


def average_precisions(matches: Matches, weights: Iterable[np.ndarray]) -> Iterator[float]:
    """COCO's average precision of the first subset if each image counted `weights` (I,) times; NaN without people.

    Args:
        weights: for each value that is wanted.
    """
    order = np.argsort(-matches.scores, kind="stable")
    image = np.repeat(np.arange(len(matches.detections)), matches.detections)[order]
    matched, counted = unpack(matches.matched[0, order]), ~unpack(matches.ignored[0, order])
    right, wrong = matched & counted, ~matched & counted
    for weight in weights:
        people = int((matches.people[0] * weight).sum())
        if not people:
            yield float("nan")
            continue
        times = weight[image]
        found = np.cumsum(right * times, axis=1)
        precision = found / np.maximum(found + np.cumsum(wrong * times, axis=1), 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)  # recalls that are never reached
        positions = [np.searchsorted(row / people, RECALLS, side="left") for row in found]
        yield float(np.mean([best[t, positions[t]].mean() for t in range(len(THRESHOLDS))]))


def average_precision(matches: Matches) -> Estimate:
    """COCO's average precision of the first subset, with its interval; NaN without people."""
    num_images = len(matches.detections)
    (value,) = average_precisions(matches, [np.ones(num_images, int)])
    return Estimate.of(value, average_precisions(matches, resamples(num_images)))
