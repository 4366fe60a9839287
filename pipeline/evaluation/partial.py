"""Partial metrics of chunks of images, computed anywhere and joined to the metrics of all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from pipeline.evaluation.errors import ErrorCounts, count_errors, join_errors
from pipeline.evaluation.eval_images import EvalImages
from pipeline.evaluation.groups import Grouping, match_groups
from pipeline.evaluation.keypoints import match_boxes, match_keypoints
from pipeline.evaluation.matching import Matches, join
from pipeline.process.mapping import Map
from pipeline.skeletons import Skeleton

_CHUNK_SIZE = 2000


class PartialMetrics(NamedTuple):
    """The matches and error counts of some images.

    Attributes:
        matches: one subset for each range of areas.
        groups: one subset for each group of each grouping; None without error analysis.
        parts: of body, feet, face and each hand, if the skeleton has several of them; people of any size.
        errors: None without error analysis.
    """

    matches: Matches
    groups: Matches | None
    parts: Mapping[str, Matches]
    errors: ErrorCounts | None


def measure(
    images: EvalImages,
    skeleton: Skeleton | None,
    analyse: bool = False,
    image_groupings: Sequence[Grouping] = (),
    map_chunks: Map = map,
) -> PartialMetrics:
    """The partial metrics of all images, joined; the same to the last bit wherever the chunks are computed.

    Args:
        skeleton: to compare poses; None for boxes.
        analyse: also compute the error analysis and the groups of poses.
        image_groupings: what images are grouped by, as in `images.labels`.
        map_chunks: where chunks of images are computed.
    """
    work = partial(_measure_chunk, skeleton=skeleton, analyse=analyse, image_groupings=tuple(image_groupings))
    return _join(list(map_chunks(work, images.chunks(_CHUNK_SIZE))))


def _measure_chunk(
    images: EvalImages, skeleton: Skeleton | None, analyse: bool, image_groupings: Sequence[Grouping]
) -> PartialMetrics:
    if skeleton is None:
        return PartialMetrics(match_boxes(images), None, {}, None)
    named = skeleton.parts if len(skeleton.parts) > 1 else {}
    parts = {part: match_keypoints(*_select_joints(images, skeleton, joints)) for part, joints in named.items()}
    matches = match_keypoints(images, skeleton)
    if not analyse:
        return PartialMetrics(matches, None, parts, None)
    groups = match_groups(images, skeleton, image_groupings)
    return PartialMetrics(matches, groups, parts, count_errors(images, skeleton))


def _select_joints(images: EvalImages, skeleton: Skeleton, joints: list[int]) -> tuple[EvalImages, Skeleton]:
    """The same images with some of the joints; people without any of them labelled are ignored."""
    truth = images.ground_truth
    keypoints = truth.keypoints[:, joints]
    ignored = truth.crowd | ~(keypoints[..., 2] > 0).any(axis=1)
    sigmas = tuple(skeleton.oks_sigmas[j] for j in joints)
    detections = images.detections._replace(keypoints=images.detections.keypoints[:, joints])
    selected = replace(images, ground_truth=truth._replace(keypoints=keypoints, ignored=ignored), detections=detections)
    return selected, Skeleton(skeleton.name, tuple(skeleton.joints[j] for j in joints), (), (), sigmas)


def _join(parts: list[PartialMetrics]) -> PartialMetrics:
    errors = [p.errors for p in parts if p.errors is not None]
    groups = [p.groups for p in parts if p.groups is not None]
    return PartialMetrics(
        join([p.matches for p in parts]),
        join(groups) if groups else None,
        {part: join([p.parts[part] for p in parts]) for part in parts[0].parts},
        join_errors(errors) if errors else None,
    )
