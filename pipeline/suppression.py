"""Which of many candidates are people: parametric pose NMS and its simpler relatives.

Parametric pose NMS merges the poses of one person into one. Poses are compared joint by joint, not by their boxes, so
that two people who overlap both stay. Fang et al., RMPE: Regional Multi-person Pose Estimation, ICCV 2017, section 3.3,
with the constants of its later releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline import boxes
from pipeline.errors import UserError
from pipeline.people import People
from pipeline.settings.fields import described

_NUM_HAND_JOINTS = 42
_NUM_FACE_JOINTS = 68
_WHOLE_BODY = (133, 136)
_MATCH_LIMIT_PX = 7.0
_MERGE_LIMIT_PX = 15.0
_LEAST_SCORE = 1e-5
_ROUNDING = 1e-9  # the weights of a group sum to 1 but for it
_ROWS_PER_BLOCK = 1 << 22  # joint distances held at a time


@dataclass(frozen=True)
class PoseNMS:
    """How candidates become people. Constants left at None take the published value for the head and the skeleton."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    kind: Literal["pose", "oks", "soft_oks", "box", "none"] = described(
        "pose",
        "pose: parametric pose NMS; oks: the best of those alike; soft_oks: others lose score; box: by boxes; none",
    )
    head: Literal["auto", "heatmap", "regression"] = described(
        "auto", "pose: which constants a whole body takes; auto: those of the pose network's head"
    )
    delta1: float | None = described(None, "pose: softness of the joint scores' agreement (1)")
    mu: float | None = described(None, "pose: weight of the distances beside the scores (1.7; regression 1.65)")
    delta2: float | None = described(None, "pose: fall-off of the distances, pixels (2.65; regression 8)")
    gamma: float | None = described(None, "pose: similarity above which a pose is a copy (22.48; regression 3.6)")
    match_threshold: float | None = described(None, "pose: joints at one place that make a copy (5; regression 3)")
    alpha: float | None = described(None, "pose: one place: within this part of the box's longer side (0.1; 0.15)")
    score_threshold: float | None = described(
        None, "pose: people whose best joint scores less are dropped (0.3; 0.01); soft_oks: whose pose score (0.3)"
    )
    area_threshold: float = described(0.0, "pose: people whose joints span less are dropped, pixels squared")
    shift: float = described(0.0, "pose: added to every coordinate at the end, pixels; the first release had -0.3")
    oks_threshold: float = described(0.9, "oks: similarity above which a pose is a copy; soft_oks: softness")
    box_iou: float = described(0.6, "box: overlap from which the weaker of two boxes goes")
    score: Literal["sum", "mean", "product", "box"] = described(
        "sum", "of a person; sum: mean joint + box + 1.25 x best joint; mean: of joints; product: mean x box; box"
    )
    keypoint_threshold: float = described(0.0, "joints scored less have no part in a person's mean score")
    max_people: int | None = described(None, "of an image, only so many people, of the best scores")


@dataclass(frozen=True)
class _Constants:
    """Of parametric pose NMS; `group_total` is what the joints of body, face and hands each weigh in a whole body."""

    delta1: float
    mu: float
    delta2: float
    gamma: float
    match_threshold: float
    alpha: float
    score_threshold: float
    group_total: float


# A heatmap whole body weighs as a body of 17 joints does, which its constants are for; a regressed one counts means.
_HEATMAP = _Constants(1.0, 1.7, 2.65, 22.48, 5.0, 0.1, 0.3, 17 / 3)
_REGRESSION = _Constants(1.0, 1.65, 8.0, 3.6, 3.0, 0.15, 0.01, 1.0)


def _constants(settings: PoseNMS, num_joints: int) -> _Constants:
    published = _REGRESSION if settings.head == "regression" and num_joints in _WHOLE_BODY else _HEATMAP
    named = {name: getattr(settings, name) for name in published.__dataclass_fields__ if name != "group_total"}
    return replace(published, **{name: value for name, value in named.items() if value is not None})


def pose_score(keypoint_scores: np.ndarray, box_scores: np.ndarray, settings: PoseNMS = PoseNMS()) -> np.ndarray:
    """Score of whole persons, as published: mean joint score + box score + 1.25 x best joint score.

    Args:
        keypoint_scores: (N, K).
        box_scores: (N,).
        settings: other formulas.
    """
    if keypoint_scores.shape[0] == 0:
        return np.zeros(0, np.float32)
    if settings.score == "box":
        return box_scores
    mean = keypoint_scores.mean(axis=1)
    if settings.keypoint_threshold > 0:
        counted = keypoint_scores >= settings.keypoint_threshold
        mean = (keypoint_scores * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    if settings.score == "mean":
        return mean
    if settings.score == "product":
        return mean * box_scores
    return mean + box_scores + 1.25 * keypoint_scores.max(axis=1)


def pose_nms(
    people: People, settings: PoseNMS = PoseNMS(), oks_sigmas: Sequence[float] | None = None
) -> tuple[People, list[list[int]]]:
    """The people among the candidates of one image.

    Args:
        people: candidates in pixels of the original image; their pose scores are not used.
        settings: which kind, and its constants.
        oks_sigmas: (K,) of the skeleton, for the kinds that compare by OKS.

    Returns:
        The people, best first (pose: in the order they were picked, highest mean joint score first), with new pose
        scores; and for each the rows of `people` that it stands for, ascending. Boxes and box scores are the picked
        candidate's.

    Raises:
        UserError: an OKS kind without sigmas.
    """
    found, rows = _suppressed(people, settings, oks_sigmas)
    if settings.max_people is None or len(found) <= settings.max_people:
        return found, rows
    best = np.sort(np.argsort(-found.pose_scores, kind="stable")[: settings.max_people])
    return found[best], [rows[i] for i in best]


def _suppressed(
    people: People, settings: PoseNMS, oks_sigmas: Sequence[float] | None
) -> tuple[People, list[list[int]]]:
    scored = replace(people, pose_scores=pose_score(people.keypoint_scores, people.box_scores, settings))
    if settings.kind == "none":
        return scored, [[i] for i in range(len(people))]
    if len(people) == 0:
        return people, []
    if settings.kind == "pose":
        return _parametric(people, settings)
    if settings.kind == "box":
        return _greedy(scored, people.box_scores, boxes.iou(people.boxes) >= settings.box_iou)
    if oks_sigmas is None:
        raise UserError(f"suppression.kind is {settings.kind}, which needs the skeleton's OKS sigmas")
    similarity = _oks(people, np.asarray(oks_sigmas, np.float64))
    if settings.kind == "oks":
        return _greedy(scored, scored.pose_scores, similarity > settings.oks_threshold)
    return _soft(scored, similarity, settings)


def _greedy(people: People, scores: np.ndarray, alike: np.ndarray) -> tuple[People, list[list[int]]]:
    """The best candidate, without those (N, N) alike to it, then the best of the rest."""
    alive = np.ones(len(people), bool)
    picks, clusters = [], []
    for pick in np.argsort(-scores, kind="stable"):
        if alive[pick]:
            cluster = alive & alike[pick]
            cluster[pick] = True
            alive &= ~cluster
            picks.append(int(pick))
            clusters.append([int(i) for i in np.flatnonzero(cluster)])
    return people[picks], clusters


def _soft(people: People, similarity: np.ndarray, settings: PoseNMS) -> tuple[People, list[list[int]]]:
    """Soft NMS (Bodla et al., ICCV 2017) by OKS: what is alike to a better one loses score by a Gaussian.

    Candidates whose pose score falls below the threshold are dropped.
    """
    least = _HEATMAP.score_threshold if settings.score_threshold is None else settings.score_threshold
    scores = people.pose_scores.astype(np.float64)
    left = list(range(len(people)))
    picks: list[int] = []
    while left:
        pick = max(left, key=lambda i: (scores[i], -i))
        left.remove(pick)
        if scores[pick] < least:
            break
        picks.append(pick)
        scores[left] *= np.exp(-(similarity[pick, left] ** 2) / settings.oks_threshold)
    return replace(people, pose_scores=scores)[picks], [[pick] for pick in picks]


def _oks(people: People, sigmas: np.ndarray) -> np.ndarray:
    """(N, N) object keypoint similarity of poses, over all joints, with the mean area of the two boxes (cocoeval)."""
    area = boxes.areas(people.boxes.astype(np.float64))
    mean_area = (area[:, None] + area[None]) / 2 + np.spacing(1)
    joints = people.keypoints.astype(np.float64)
    similarity = np.empty_like(mean_area)
    rows = max(1, _ROWS_PER_BLOCK // (len(people) * len(sigmas)))
    for start in range(0, len(people), rows):
        block = slice(start, start + rows)
        squared = ((joints[block, None] - joints[None]) ** 2).sum(axis=-1)
        exponent = squared / (2 * sigmas) ** 2 / mean_area[block, :, None] / 2
        similarity[block] = np.exp(-exponent).mean(axis=-1)
    return similarity


def _parametric(people: People, settings: PoseNMS) -> tuple[People, list[list[int]]]:
    constants = _constants(settings, people.num_joints)
    scores = people.keypoint_scores.astype(np.float64)
    scores[scores == 0] = _LEAST_SCORE
    joints = people.keypoints.astype(np.float64)
    sizes = boxes.long_sides(people.boxes).astype(np.float64)
    copies = _copies(joints, scores, sizes * constants.alpha, constants)

    picks: list[int] = []
    clusters: list[list[int]] = []
    alive = np.ones(len(people), bool)
    for pick in np.argsort(-people.keypoint_scores.mean(axis=1, dtype=np.float64), kind="stable"):
        if alive[pick]:
            cluster = alive & copies[pick]
            alive &= ~cluster
            if scores[pick].max() >= constants.score_threshold:
                picks.append(int(pick))
                clusters.append([int(i) for i in np.flatnonzero(cluster)])

    merged_joints = joints[picks]
    merged_scores = scores[picks]
    for row, (pick, cluster) in enumerate(zip(picks, clusters, strict=True)):
        if len(cluster) > 1:
            radius = min(sizes[pick] * constants.alpha, _MERGE_LIMIT_PX)
            merged_joints[row], merged_scores[row] = _merge(joints[cluster], scores[cluster], joints[pick], radius)

    span = merged_joints.max(axis=1) - merged_joints.min(axis=1)  # zero rows are fine: K is at least 1
    keep = (merged_scores.max(axis=1) >= constants.score_threshold) & (
        2.25 * span[:, 0] * span[:, 1] >= settings.area_threshold
    )
    kept_scores = merged_scores[keep].astype(np.float32)
    picked = people[picks][keep]
    result = replace(
        picked,
        keypoints=merged_joints[keep] + settings.shift,
        keypoint_scores=kept_scores,
        pose_scores=pose_score(kept_scores, picked.box_scores, settings),
    )
    return result, [cluster for cluster, kept in zip(clusters, keep, strict=True) if kept]


def _copies(joints: np.ndarray, scores: np.ndarray, reference: np.ndarray, constants: _Constants) -> np.ndarray:
    """(N, N) bool: whether pose j, seen from pick i, is a copy of it. A pick is always its own."""
    num_people, num_joints = scores.shape
    weights, scale = _joint_groups(num_joints, constants.group_total)
    confidence = np.tanh(scores / constants.delta1)
    limit = np.minimum(reference, _MATCH_LIMIT_PX)
    copies = np.empty((num_people, num_people), bool)
    rows = max(1, _ROWS_PER_BLOCK // (num_people * num_joints))
    for start in range(0, num_people, rows):
        block = slice(start, start + rows)
        distances = np.linalg.norm(joints[block, None] - joints[None], axis=-1) * scale  # (rows, N, K)
        agreement = (distances <= 1) * confidence[block, None] * confidence[None]
        similarity = (agreement + constants.mu * np.exp(-distances / constants.delta2)) @ weights
        matches = (distances <= limit[block, None, None]) @ weights
        copies[block] = (similarity > constants.gamma) | (matches >= constants.match_threshold - _ROUNDING)
    np.fill_diagonal(copies, True)
    return copies


def _joint_groups(num_joints: int, group_total: float) -> tuple[np.ndarray, np.ndarray]:
    """Per-joint weights and distance scales.

    A body counts every joint once. A whole body takes the means over body, face and hands, times `group_total`, with
    distances scaled 1, 1.9 and 0.55.
    """
    weights, scale = np.ones(num_joints), np.ones(num_joints)
    if num_joints in _WHOLE_BODY:
        hands = slice(num_joints - _NUM_HAND_JOINTS, num_joints)
        face = slice(hands.start - _NUM_FACE_JOINTS, hands.start)
        body = slice(0, face.start)
        for group, group_scale in ((body, 1.0), (face, 1.9), (hands, 0.55)):
            weights[group] = group_total / (group.stop - group.start)
            scale[group] = group_scale
    return weights, scale


def _merge(joints: np.ndarray, scores: np.ndarray, pick: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Score-weighted mean, joint by joint, of the (M, K, 2) poses within `radius` pixels of the (K, 2) pick."""
    near = np.linalg.norm(joints - pick, axis=-1) <= radius
    weighted = np.where(near, np.maximum(scores, _LEAST_SCORE), 0.0)  # raw maxima may be negative
    weights = weighted / weighted.sum(axis=0)
    return np.einsum("mk,mkc->kc", weights, joints), (weights * scores).sum(axis=0)
