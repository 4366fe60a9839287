"""Metrics of tracks. Counts of sequences add up, and agree with TrackEval (github.com/JonathonLuiten/TrackEval).

CLEAR MOT: Bernardin and Stiefelhagen, EURASIP Journal on Image and Video Processing, 2008. IDF1: Ristani et al., ECCV
Workshops 2016. HOTA: Luiten et al., IJCV 129, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

THRESHOLD = 0.5  # similarity of a person and an annotated one, for CLEAR MOT and IDF1
_ALPHAS = np.arange(1, 20) / 20  # similarities over which HOTA is averaged
_TOLERANCE = float(np.finfo(float).eps)
_ONE_MORE = 1000.0  # preference of lasting tracks for one more pair, above the similarities of all
_CONTINUED = 1e6  # preference of CLEAR MOT for pairs of the frame before, above any similarity


class Frame(NamedTuple):
    """The people of a frame.

    Attributes:
        true: (G,) tracks of the annotated people.
        found: (P,) tracks of the predicted people.
        similarity: (G, P) from 0 to 1.
    """

    true: np.ndarray
    found: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Clear:
    """Counts of CLEAR MOT.

    Attributes:
        matched, missed, invented: annotated people found and not found, and predicted people that match none.
        switches: annotated people who have another track than when they were last found.
        similarity: sum over the matched pairs.
    """

    matched: int = 0
    missed: int = 0
    invented: int = 0
    switches: int = 0
    similarity: float = 0.0

    def __add__(self, other: Clear) -> Clear:
        return Clear(
            self.matched + other.matched,
            self.missed + other.missed,
            self.invented + other.invented,
            self.switches + other.switches,
            self.similarity + other.similarity,
        )

    @property
    def mota(self) -> float:
        """1 without errors; it has no lower limit."""
        return (self.matched - self.invented - self.switches) / max(1, self.matched + self.missed)

    @property
    def motp(self) -> float:
        """Mean similarity of the matched pairs."""
        return self.similarity / max(1, self.matched)


@dataclass(frozen=True)
class Identity:
    """Counts of people with the right identity, under the best assignment of all tracks to annotated ones."""

    right: int = 0
    missed: int = 0
    invented: int = 0

    def __add__(self, other: Identity) -> Identity:
        return Identity(self.right + other.right, self.missed + other.missed, self.invented + other.invented)

    @property
    def f1(self) -> float:
        return self.right / max(1.0, self.right + 0.5 * self.invented + 0.5 * self.missed)


@dataclass(frozen=True)
class Hota:
    """Counts of HOTA at each of 19 similarities.

    Attributes:
        matched, missed, invented: (19,).
        association: (19,) sum over the matched pairs of the overlap of their tracks.
    """

    matched: np.ndarray
    missed: np.ndarray
    invented: np.ndarray
    association: np.ndarray

    @classmethod
    def none(cls) -> Hota:
        return cls(*(np.zeros(len(_ALPHAS)) for _ in range(4)))

    def __add__(self, other: Hota) -> Hota:
        return Hota(
            self.matched + other.matched,
            self.missed + other.missed,
            self.invented + other.invented,
            self.association + other.association,
        )

    @property
    def detection(self) -> float:
        """DetA: how well people are found."""
        return float(self._detection().mean())

    @property
    def associated(self) -> float:
        """AssA: how well people keep their tracks."""
        return float(self._association().mean())

    @property
    def score(self) -> float:
        """HOTA: the geometric mean of both, averaged over the similarities."""
        return float(np.sqrt(self._detection() * self._association()).mean())

    def _detection(self) -> np.ndarray:
        return self.matched / np.maximum(1, self.matched + self.missed + self.invented)

    def _association(self) -> np.ndarray:
        return self.association / np.maximum(1, self.matched)


def clear(frames: Sequence[Frame], lasting: bool = False) -> Clear:
    """CLEAR MOT of a sequence.

    Args:
        lasting: as PoseTrack and py-motmetrics count: annotated people keep their track, even if it was not found for a
            while, and as many pairs as possible are made. Else as TrackEval counts: pairs of the frame before are kept,
            and the sum of the similarities is as large as possible.
    """
    latest: dict[int, int] = {}  # track of each annotated person when it was last found
    before: dict[int, int] = {}  # the same, in the frame before
    total = Clear()
    for frame in frames:
        if not len(frame.true) or not len(frame.found):
            total += Clear(missed=len(frame.true), invented=len(frame.found))
            continue
        known = latest if lasting else before
        alike = frame.similarity >= THRESHOLD - _TOLERANCE
        kept = alike & [[known.get(int(true)) == int(found) for found in frame.found] for true in frame.true]
        kept &= kept.cumsum(axis=0) == 1  # a lasting track may have two people: it goes to the first
        score = np.where(alike, _CONTINUED * kept + _ONE_MORE * lasting + frame.similarity, 0.0)
        pairs = [(row, column) for row, column in _assign(score) if score[row, column] > _TOLERANCE]
        before = {int(frame.true[row]): int(frame.found[column]) for row, column in pairs}
        total += Clear(
            matched=len(pairs),
            missed=len(frame.true) - len(pairs),
            invented=len(frame.found) - len(pairs),
            switches=sum(latest.get(true, found) != found for true, found in before.items()),
            similarity=float(sum(frame.similarity[pair] for pair in pairs)),
        )
        latest |= before
    return total


def identity(frames: Sequence[Frame]) -> Identity:
    """IDF1's counts of a sequence."""
    true, found = _tracks(frames)
    together = np.zeros((len(true), len(found)))
    for frame, rows, columns in _places(frames, true, found):
        together[np.ix_(rows, columns)] += frame.similarity >= THRESHOLD
    right = int(sum(together[pair] for pair in _assign(together)))
    num_true, num_found = sum(len(frame.true) for frame in frames), sum(len(frame.found) for frame in frames)
    return Identity(right, num_true - right, num_found - right)


def hota(frames: Sequence[Frame]) -> Hota:
    """HOTA's counts of a sequence."""
    true, found = _tracks(frames)
    candidates = np.zeros((len(true), len(found)))  # how much each pair of tracks could have in common
    num_true, num_found = np.zeros((len(true), 1)), np.zeros((1, len(found)))
    for frame, rows, columns in _places(frames, true, found):
        rivals = frame.similarity.sum(axis=0)[None] + frame.similarity.sum(axis=1)[:, None] - frame.similarity
        share = np.divide(frame.similarity, rivals, out=np.zeros_like(rivals), where=rivals > _TOLERANCE)
        candidates[np.ix_(rows, columns)] += share
        num_true[rows, 0] += 1
        num_found[0, columns] += 1
    alignment = candidates / np.maximum(num_true + num_found - candidates, _TOLERANCE)
    together = np.zeros((len(_ALPHAS), len(true), len(found)))
    matched, missed, invented = np.zeros((3, len(_ALPHAS)))
    for frame, rows, columns in _places(frames, true, found):
        pairs = _assign(alignment[np.ix_(rows, columns)] * frame.similarity)
        similar = np.array([frame.similarity[pair] for pair in pairs])
        accepted = similar[None] >= _ALPHAS[:, None] - _TOLERANCE if pairs else np.zeros((len(_ALPHAS), 0), bool)
        matched += accepted.sum(axis=1)
        missed += len(rows) - accepted.sum(axis=1)
        invented += len(columns) - accepted.sum(axis=1)
        for (row, column), at in zip(pairs, accepted.T, strict=True):
            together[:, rows[row], columns[column]] += at
    overlap = together / np.maximum(1, num_true + num_found - together)
    return Hota(matched, missed, invented, (together * overlap).sum(axis=(1, 2)))


def _tracks(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of all annotated and of all predicted tracks, sorted."""
    none = np.zeros(0, int)
    true = np.unique(np.concatenate([none, *(frame.true for frame in frames)]))
    return true, np.unique(np.concatenate([none, *(frame.found for frame in frames)]))


def _places(
    frames: Sequence[Frame], true: np.ndarray, found: np.ndarray
) -> Iterator[tuple[Frame, np.ndarray, np.ndarray]]:
    """Each frame with the places of its ids in the sorted ids."""
    return ((frame, np.searchsorted(true, frame.true), np.searchsorted(found, frame.found)) for frame in frames)


def _assign(score: np.ndarray) -> list[tuple[int, int]]:
    """The assignment of rows to columns with the largest sum."""
    from scipy.optimize import linear_sum_assignment  # imported here: other evaluations need not wait for it

    return [(int(row), int(column)) for row, column in zip(*linear_sum_assignment(score, maximize=True), strict=True)]
