"""From matches to precision and recall, and to the numbers that COCO gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.matching import THRESHOLDS, Matches, unpack

RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Curves:
    """Precision at given recalls, for T thresholds of similarity and A questions.

    Attributes:
        questions: their names.
        precision: (A, T, 101), the best at that recall or beyond; -1 where there is nobody to find.
        recall: (A, T), the highest; -1 likewise.
        scores: (A, T, 101) at which the recall is reached; 0 where it never is.
    """

    questions: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray

    def mean(self, values: np.ndarray, question: str, threshold: float | None = None) -> float:
        """Mean of `precision` or `recall` over what is defined; -1 where that is nothing."""
        chosen = values[self.questions.index(question)]
        if threshold is not None:
            chosen = chosen[np.flatnonzero(threshold == THRESHOLDS)]
        chosen = chosen[chosen > -1]
        return float(chosen.mean()) if chosen.size else -1.0


def accumulate(matches: Matches, names: Sequence[str]) -> Curves:
    """Precision and recall of all images together.

    Args:
        matches: of all images, in their order: of equal scores, the earlier come first.
        names: of the questions.
    """
    shape = (len(names), len(THRESHOLDS))
    precision, recall = np.full((*shape, len(RECALLS)), -1.0), np.full(shape, -1.0)
    scores = np.zeros((*shape, len(RECALLS)))
    order = np.argsort(-matches.scores, kind="stable")
    ranked = matches.scores[order]
    for question in range(len(names)):
        people = int(matches.people[question])
        if not people:
            continue
        matched, ignored = unpack(matches.matched[question, order]), unpack(matches.ignored[question, order])
        for threshold in range(len(THRESHOLDS)):
            counted = ~ignored[threshold]
            right = np.cumsum(matched[threshold] & counted).astype(float)
            wrong = np.cumsum(~matched[threshold] & counted).astype(float)
            reached = right / people
            exact = right / (wrong + right + np.spacing(1))
            recall[question, threshold] = reached[-1] if len(reached) else 0
            best = np.maximum.accumulate(exact[::-1])[::-1]
            at = np.searchsorted(reached, RECALLS, side="left")
            there = at < len(reached)
            precision[question, threshold] = 0
            precision[question, threshold, there] = best[at[there]]
            scores[question, threshold, there] = ranked[at[there]]
    return Curves(tuple(names), precision, recall, scores)
