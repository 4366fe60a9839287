"""Average precision by group: people grouped by size, labelled joints and overlap, images by crowding and columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.coco.columns import Detections, GroundTruth
from pipeline.evaluation.curves import accumulate
from pipeline.evaluation.eval_images import EvalImages
from pipeline.evaluation.matching import Matches, SubsetMasks, box_similarity, join, keypoint_similarity, match
from pipeline.skeletons import Skeleton

_OVERLAP = 0.1  # IoU from which two boxes overlap
_MAX_LABELS = 20


class GroupResult(NamedTuple):
    """One group of people: the grouping, the group's label, the number of people, and their AP."""

    grouping: str
    label: str
    people: int
    ap: float


class Grouping(NamedTuple):
    """A property that people, or images, are grouped by.

    Attributes:
        name: of the property, for example of a column.
        labels: of the groups.
    """

    name: str
    labels: tuple[str, ...]


# Upper limits of the groups; the last group has none. Size is the square root of the area, in octaves.
_SIZES = (32, 64, 128, 256)
_JOINTS = (5, 10, 15)
_OTHERS = (0, 2)
_CROWDING = (0.1, 0.8)
_SIZE = Grouping("size, pixels", (*(f"to {n}" for n in _SIZES), f"over {_SIZES[-1]}"))
LABELLED = Grouping("labelled joints", ("1-5", "6-10", "11-15", "16 or more"))
OVERLAPPED = Grouping("people overlapped", ("none", "1-2", "3 or more"))
CROSSED = Grouping(
    "people overlapped, labelled joints", tuple(f"{o}, {j}" for o in OVERLAPPED.labels for j in LABELLED.labels)
)
_CROWDED = Grouping("crowding of the image", ("to 0.1", "to 0.8", "over 0.8"))
_PEOPLE_GROUPINGS = (_SIZE, LABELLED, OVERLAPPED, CROSSED)


def group_images(name: str, values: Sequence[Any]) -> tuple[Grouping, np.ndarray]:
    """Group images by the values of a column: the grouping, and (I,) the label number of each image.

    Each of the most frequent values has its own group, the others share one.
    """
    text = np.array(["none" if value is None else str(value) for value in values])
    names, which, counts = np.unique(text, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    labels = tuple(names[order].tolist())
    if len(labels) > _MAX_LABELS:
        labels = (*labels[: _MAX_LABELS - 1], f"{len(labels) - _MAX_LABELS + 1} others")
    return Grouping(name, labels), np.minimum(rank[which], _MAX_LABELS - 1)


def match_groups(images: EvalImages, skeleton: Skeleton, image_groupings: Sequence[Grouping]) -> Matches:
    """Matches with one subset for each group of each grouping; people of other groups are ignored.

    Unmatched detections are false positives in every group of people, but only in their own image's groups of images.
    """
    sigmas = np.array(skeleton.oks_sigmas)
    parts = []
    for number, image in enumerate(images):
        truth, detections = image
        of_people = np.concatenate([_members(grouping.labels, which) for grouping, which in _group_people(truth)])
        own = [np.searchsorted(_CROWDING, crowding(truth))]
        own += [images.labels[grouping.name][number] for grouping in image_groupings]
        of_image = np.concatenate(
            [
                np.arange(len(grouping.labels)) == label
                for grouping, label in zip((_CROWDED, *image_groupings), own, strict=True)
            ]
        )
        shape = (len(of_image), len(truth.areas))
        members = np.concatenate([of_people, np.broadcast_to(of_image[:, None], shape)])
        elsewhere = np.concatenate([np.zeros(len(of_people), bool), ~of_image])
        ignored_unmatched = np.broadcast_to(elsewhere[:, None], (len(members), len(detections.scores)))
        subsets = SubsetMasks(truth.ignored | ~members, ignored_unmatched)
        parts.append(match(truth.crowd, detections.scores, keypoint_similarity(*image, sigmas), subsets))
    return join(parts)


def group_results(matches: Matches, image_groupings: Sequence[Grouping]) -> list[GroupResult]:
    """The result of every group, from the joined matches of `match_groups`."""
    groupings = (*_PEOPLE_GROUPINGS, _CROWDED, *image_groupings)
    results = []
    for number, (name, label) in enumerate((g.name, label) for g in groupings for label in g.labels):
        curves = accumulate(matches.of(slice(number, number + 1)), [label])
        ap = curves.mean(curves.precision, label)
        results.append(GroupResult(name, label, int(matches.people[number].sum()), ap))
    return results


def lines(results: Sequence[GroupResult]) -> list[str]:
    """One line of text per grouping."""
    text = []
    for name in dict.fromkeys(r.grouping for r in results):
        groups = ", ".join(f"{r.label} {r.ap:.3f} ({r.people})" for r in results if r.grouping == name and r.people)
        text.append(f"AP by {name} (people): {groups}")
    return text


def _members(labels: Sequence[str], which: np.ndarray) -> np.ndarray:
    """(labels, G) bool."""
    return which == np.arange(len(labels))[:, None]


def _group_people(truth: GroundTruth) -> Iterator[tuple[Grouping, np.ndarray]]:
    """Each of `_PEOPLE_GROUPINGS`, and (G,) the label numbers of the people."""
    labelled = np.searchsorted(_JOINTS, (truth.keypoints[..., 2] > 0).sum(axis=1))
    others = np.searchsorted(_OTHERS, _count_overlaps(truth))
    yield _SIZE, np.searchsorted(_SIZES, np.sqrt(truth.areas))
    yield LABELLED, labelled
    yield OVERLAPPED, others
    yield CROSSED, others * len(LABELLED.labels) + labelled


def _count_overlaps(truth: GroundTruth) -> np.ndarray:
    """(G,) number of other boxes that overlap each box."""
    if not len(truth.areas):
        return np.zeros(0, int)
    boxes = Detections.from_boxes(truth.boxes_xywh, truth.areas)
    overlaps = box_similarity(truth._replace(crowd=np.zeros_like(truth.crowd)), boxes) >= _OVERLAP
    return overlaps.sum(axis=1) - 1


def crowding(truth: GroundTruth) -> float:
    """The crowd index of an image (Li et al., CrowdPose, CVPR 2019); 0 without people who have joints.

    The mean over the people of the image: joints of others inside a person's box, per joint of that person.
    """
    labelled = truth.keypoints[..., 2] > 0
    first = truth.boxes_xywh[:, None, None, :2]
    last = (truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:])[:, None, None]
    joints = truth.keypoints[None, ..., :2]
    inside = (((joints >= first) & (joints <= last)).all(axis=-1) & labelled).sum(axis=2)  # (G boxes, G people)
    own = np.diagonal(inside)
    counted = ~truth.ignored & (own > 0)
    if not counted.any():
        return 0.0
    return float(((inside.sum(axis=1) - own)[counted] / own[counted]).mean())
