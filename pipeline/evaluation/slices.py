"""Average precision over some of the people: by size, by labelled joints, by how many others are in their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.errors import average_precision, match_all_sizes
from pipeline.evaluation.keypoints import Scene
from pipeline.evaluation.matching import Annotated, Found, box_similarity
from pipeline.skeletons import Skeleton

_OVERLAP = 0.1  # of boxes, from which one is in the other's way


class Slice(NamedTuple):
    """Some of the people: what is asked of them, which answer they have, how many they are, and their AP."""

    question: str
    answer: str
    people: int
    ap: float


# Upper limits, the last without one; size is the square root of the area, in octaves.
_SIZES = (32, 64, 128, 256)
_JOINTS = (5, 10, 15)
_OTHERS = (0, 2)


def slices(scenes: Sequence[Scene], skeleton: Skeleton) -> list[Slice]:
    """Every slice; finding or missing people of other slices doesn't count in it."""
    groups = [
        ("size, pixels", [f"to {n}" for n in _SIZES] + [f"over {_SIZES[-1]}"], _size),
        ("labelled joints", ["1-5", "6-10", "11-15", "16 or more"], _joints),
        ("people overlapped", ["none", "1-2", "3 or more"], _others),
    ]
    return [
        Slice(question, answer, *sliced(scenes, skeleton, [number(a) == n for a, _ in scenes]))
        for question, answers, number in groups
        for n, answer in enumerate(answers)
    ]


def sliced(scenes: Sequence[Scene], skeleton: Skeleton, members: Sequence[np.ndarray]) -> tuple[int, float]:
    """How many people are members, and the average precision over them; -1 where they are none.

    Args:
        members: (G,) bool for the people of each image.
    """
    sigmas = np.array(skeleton.oks_sigmas)
    matches, people = [], 0
    for (annotated, found), member in zip(scenes, members, strict=True):
        ignored = annotated.ignored | ~member
        people += int((~ignored).sum())
        matches.append(match_all_sizes(Scene(annotated._replace(ignored=ignored), found), sigmas))
    return people, average_precision(matches)


def lines(found: Sequence[Slice]) -> list[str]:
    """For a person to read, a question a line."""
    text = []
    for question in dict.fromkeys(s.question for s in found):
        answers = ", ".join(f"{s.answer} {s.ap:.3f} ({s.people})" for s in found if s.question == question and s.people)
        text.append(f"AP by {question} (people): {answers}")
    return text


def _size(annotated: Annotated) -> np.ndarray:
    return np.searchsorted(_SIZES, np.sqrt(annotated.areas))


def _joints(annotated: Annotated) -> np.ndarray:
    return np.searchsorted(_JOINTS, (annotated.keypoints[..., 2] > 0).sum(axis=1))


def _others(annotated: Annotated) -> np.ndarray:
    if not len(annotated.areas):
        return np.zeros(0, int)
    boxes = Found(annotated.boxes, annotated.areas, annotated.areas, annotated.keypoints)
    overlaps = box_similarity(annotated._replace(crowd=np.zeros_like(annotated.crowd)), boxes) >= _OVERLAP
    return np.searchsorted(_OTHERS, overlaps.sum(axis=1) - 1)
