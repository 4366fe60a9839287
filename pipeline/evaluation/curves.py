"""Precision and recall from matches, and the means that COCO reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.matching import THRESHOLDS, Matches, unpack

RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Curves:
    """Precision at given recalls, for S subsets and T thresholds of similarity.

    Attributes:
        subsets: their names.
        precision: (S, T, 101), the best at that recall or beyond; -1 if the subset has no people.
        recall: (S, T), the highest; -1 if the subset has no people.
        scores: (S, T, 101) at which the recall is reached; 0 if it never is.
    """

    subsets: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray

    def mean(self, values: np.ndarray, subset: str, threshold: float | None = None) -> float:
        """Mean of `precision` or `recall` over what is defined; -1 if nothing is.

        Args:
            threshold: of similarity; by default the mean over all.
        """
        chosen = values[self.subsets.index(subset)]
        if threshold is not None:
            chosen = chosen[np.flatnonzero(threshold == THRESHOLDS)]
        chosen = chosen[chosen > -1]
        return float(chosen.mean()) if chosen.size else -1.0


def accumulate(matches: Matches, names: Sequence[str]) -> Curves:
    """Precision and recall over all images.

    Args:
        matches: of all images, in their order: of equal scores, the earlier come first.
        names: of the subsets.
    """
    shape = (len(names), len(THRESHOLDS))
    precision, recall = np.full((*shape, len(RECALLS)), -1.0), np.full(shape, -1.0)
    scores = np.zeros((*shape, len(RECALLS)))
    order = np.argsort(-matches.scores, kind="stable")
    ranked = matches.scores[order]
    for subset in range(len(names)):
        people = int(matches.people[subset].sum())
        if not people:
            continue
        matched, ignored = unpack(matches.matched[subset, order]), unpack(matches.ignored[subset, order])
        for threshold in range(len(THRESHOLDS)):
            counted = ~ignored[threshold]
            true_positives = np.cumsum(matched[threshold] & counted).astype(float)
            false_positives = np.cumsum(~matched[threshold] & counted).astype(float)
            reached = true_positives / people
            exact = true_positives / (false_positives + true_positives + np.spacing(1))
            recall[subset, threshold] = reached[-1] if len(reached) else 0
            best = np.maximum.accumulate(exact[::-1])[::-1]
            at = np.searchsorted(reached, RECALLS, side="left")
            exists = at < len(reached)
            precision[subset, threshold] = 0
            precision[subset, threshold, exists] = best[at[exists]]
            scores[subset, threshold, exists] = ranked[at[exists]]
    return Curves(tuple(names), precision, recall, scores)
