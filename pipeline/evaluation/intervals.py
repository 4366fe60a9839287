"""Confidence intervals of metrics by resampling images (the bootstrap: Efron, Annals of Statistics 1979)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.curves import RECALLS
from pipeline.evaluation.matching import THRESHOLDS, Matches, unpack

MIN_IMAGES = 10  # fewer give no interval: resamples of so few images are too alike
_MOST, _FEWEST = 200, 20  # resamples
_WORK = 4_000_000  # images times resamples; the intervals of so many images are narrow anyway
_PERCENTILES = (2.5, 97.5)


class Estimate(NamedTuple):
    """A value and its 95 % confidence interval; NaN where they are not known."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Iterable[float]) -> Estimate:
        """A value and its interval from values over resampled images; undefined ones (NaN) are left out.

        Resamples that are all the same give no interval: they show that there are too few images, not certainty.
        """
        values = np.array(list(resampled), float)
        values = values[np.isfinite(values)]
        if not len(values) or values.min() == values.max():
            return cls(value, float("nan"), float("nan"))
        low, high = np.percentile(values, _PERCENTILES)
        return cls(value, float(low), float(high))

    @property
    def is_bounded(self) -> bool:
        """Whether the interval is known."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def __format__(self, spec: str) -> str:
        """
        >>> f"{Estimate(0.5, 0.4, 0.62):.2f}"
        '0.50 (0.40 to 0.62)'
        """
        value, low, high = (format(number, spec) if np.isfinite(number) else "?" for number in self)
        return f"{value} ({low} to {high})" if self.is_bounded else value


def resamples(num_images: int) -> Iterator[np.ndarray]:
    """(I,) how often each image is drawn, for each of 200 resamples with replacement, 20 of very many images.

    The same number of images gives the same resamples: differences between runs on the same images are paired. None of
    fewer than `MIN_IMAGES`.
    """
    if num_images < MIN_IMAGES:
        return
    r = np.random.default_rng(0)
    for _ in range(min(_MOST, max(_FEWEST, _WORK // num_images))):
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
