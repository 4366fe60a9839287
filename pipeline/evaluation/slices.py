"""Average precision over some of the people: by size, labelled joints, who is in their way, and by their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.evaluation.curves import accumulate
from pipeline.evaluation.matching import (
    Annotated,
    Found,
    Matches,
    Questions,
    box_similarity,
    join,
    keypoint_similarity,
    match,
)
from pipeline.evaluation.scenes import Scenes
from pipeline.skeletons import Skeleton

_OVERLAP = 0.1  # of boxes, from which one is in the other's way
_MOST_ANSWERS = 20


class Slice(NamedTuple):
    """Some of the people: what is asked of them, which answer they have, how many they are, and their AP."""

    question: str
    answer: str
    people: int
    ap: float


class Answers(NamedTuple):
    """What people, or images, can be told apart by.

    Attributes:
        question: e.g. the name of a column.
        answers: possible ones.
    """

    question: str
    answers: tuple[str, ...]


# Upper limits, the last without one; size is the square root of the area, in octaves.
_SIZES = (32, 64, 128, 256)
_JOINTS = (5, 10, 15)
_OTHERS = (0, 2)
_CROWDING = (0.1, 0.8)
_SIZE = Answers("size, pixels", (*(f"to {n}" for n in _SIZES), f"over {_SIZES[-1]}"))
LABELLED = Answers("labelled joints", ("1-5", "6-10", "11-15", "16 or more"))
OVERLAPPED = Answers("people overlapped", ("none", "1-2", "3 or more"))
CROSSED = Answers(
    "people overlapped, labelled joints", tuple(f"{o}, {j}" for o in OVERLAPPED.answers for j in LABELLED.answers)
)
_CROWDED = Answers("crowding of the image", ("to 0.1", "to 0.8", "over 0.8"))
_OF_PEOPLE = (_SIZE, LABELLED, OVERLAPPED, CROSSED)


def image_answers(question: str, values: Sequence[Any]) -> tuple[Answers, np.ndarray]:
    """The different values of a column about images, and (I,) which of them each image has.

    The most frequent ones have an answer of their own, the rest share one.
    """
    text = np.array(["none" if value is None else str(value) for value in values])
    names, which, counts = np.unique(text, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    answers = tuple(names[order].tolist())
    if len(answers) > _MOST_ANSWERS:
        answers = (*answers[: _MOST_ANSWERS - 1], f"{len(answers) - _MOST_ANSWERS + 1} others")
    return Answers(question, answers), np.minimum(rank[which], _MOST_ANSWERS - 1)


def match_slices(scenes: Scenes, skeleton: Skeleton, of_images: Sequence[Answers]) -> Matches:
    """Matches with a question for each answer to each question; finding or missing other people doesn't count in it.

    Those found who are nobody count against every answer about people, but only against their own image's answers.
    """
    sigmas = np.array(skeleton.oks_sigmas)
    parts = []
    for number, scene in enumerate(scenes):
        annotated, found = scene
        of_people = np.concatenate([_members(about.answers, which) for about, which in _of_people(annotated)])
        own = [np.searchsorted(_CROWDING, crowding(annotated))]
        own += [scenes.answers[about.question][number] for about in of_images]
        of_image = np.concatenate(
            [np.arange(len(about.answers)) == answer for about, answer in zip((_CROWDED, *of_images), own, strict=True)]
        )
        shape = (len(of_image), len(annotated.areas))
        members = np.concatenate([of_people, np.broadcast_to(of_image[:, None], shape)])
        elsewhere = np.concatenate([np.zeros(len(of_people), bool), ~of_image])
        aside = np.broadcast_to(elsewhere[:, None], (len(members), len(found.scores)))
        questions = Questions(annotated.ignored | ~members, aside)
        parts.append(match(annotated.crowd, found.scores, keypoint_similarity(*scene, sigmas), questions))
    return join(parts)


def slices(matches: Matches, of_images: Sequence[Answers]) -> list[Slice]:
    """Every slice, from what `match_slices` gave for all images."""
    asked = [(about.question, answer) for about in (*_OF_PEOPLE, _CROWDED, *of_images) for answer in about.answers]
    found = []
    for number, (question, answer) in enumerate(asked):
        curves = accumulate(matches.of(slice(number, number + 1)), [answer])
        ap = curves.mean(curves.precision, answer)
        found.append(Slice(question, answer, int(matches.people[number]), ap))
    return found


def lines(found: Sequence[Slice]) -> list[str]:
    """For a person to read, a question a line."""
    text = []
    for question in dict.fromkeys(s.question for s in found):
        answers = ", ".join(f"{s.answer} {s.ap:.3f} ({s.people})" for s in found if s.question == question and s.people)
        text.append(f"AP by {question} (people): {answers}")
    return text


def _members(answers: Sequence[str], which: np.ndarray) -> np.ndarray:
    """(answers, G) bool."""
    return which == np.arange(len(answers))[:, None]


def _of_people(annotated: Annotated) -> Iterator[tuple[Answers, np.ndarray]]:
    """Each question of `_OF_PEOPLE`, and (G,) the numbers of people's answers."""
    labelled = np.searchsorted(_JOINTS, (annotated.keypoints[..., 2] > 0).sum(axis=1))
    others = np.searchsorted(_OTHERS, _overlapped(annotated))
    yield _SIZE, np.searchsorted(_SIZES, np.sqrt(annotated.areas))
    yield LABELLED, labelled
    yield OVERLAPPED, others
    yield CROSSED, others * len(LABELLED.answers) + labelled


def _overlapped(annotated: Annotated) -> np.ndarray:
    """(G,) how many others' boxes are in the way of each."""
    if not len(annotated.areas):
        return np.zeros(0, int)
    none = np.zeros((len(annotated.areas), 0))
    boxes = Found(annotated.boxes, annotated.areas, annotated.areas, none, none)
    overlaps = box_similarity(annotated._replace(crowd=np.zeros_like(annotated.crowd)), boxes) >= _OVERLAP
    return overlaps.sum(axis=1) - 1


def crowding(annotated: Annotated) -> float:
    """How many joints of others lie in people's boxes, per joint of their own: the mean over an image's people.

    The crowd index of Li et al., CrowdPose, CVPR 2019; 0 without people who have joints.
    """
    labelled = annotated.keypoints[..., 2] > 0
    first, last = annotated.boxes[:, None, None, :2], (annotated.boxes[:, :2] + annotated.boxes[:, 2:])[:, None, None]
    places = annotated.keypoints[None, ..., :2]
    inside = (((places >= first) & (places <= last)).all(axis=-1) & labelled).sum(axis=2)  # (G boxes, G people)
    own = np.diagonal(inside)
    counted = ~annotated.ignored & (own > 0)
    if not counted.any():
        return 0.0
    return float(((inside.sum(axis=1) - own)[counted] / own[counted]).mean())
