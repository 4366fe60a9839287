"""Parametric pose NMS: of many poses of one person, keep one, made of all of them.

Fang et al., RMPE: Regional Multi-person Pose Estimation, ICCV 2017, section 3.3, with the constants of its later
releases. Poses are compared joint by joint, not by their boxes, so that two people who overlap both stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.people import People

_NUM_HAND_JOINTS = 42
_NUM_FACE_JOINTS = 68
_WHOLE_BODY = (133, 136)
_MATCH_LIMIT_PX = 7.0
_MERGE_LIMIT_PX = 15.0
_ROWS_PER_BLOCK = 1 << 22  # joint distances held at a time


def _constant(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class PoseNMS:
    """Constants of the suppression; the defaults are for heatmap networks."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Literal["pose", "none"] = _constant("pose", "pose: parametric pose NMS; none: keep every pose as it is")
    delta1: float = _constant(1.0, "softness of the joint scores' agreement")
    mu: float = _constant(1.7, "weight of the distances beside the scores")
    delta2: float = _constant(2.65, "fall-off of the distances, pixels")
    gamma: float = _constant(22.48, "similarity above which a pose is a copy")
    match_threshold: int = _constant(5, "joints at the same place that make a pose a copy")
    alpha: float = _constant(0.1, "the same place: within this part of the box's longer side")
    score_threshold: float = _constant(0.3, "people whose best joint scores less are dropped")
    area_threshold: float = _constant(0.0, "people whose joints span less are dropped, pixels squared")


def pose_score(keypoint_scores: np.ndarray, box_scores: np.ndarray) -> np.ndarray:
    """Score of whole persons: mean joint score + box score + 1.25 x best joint score.

    Args:
        keypoint_scores: (N, K).
        box_scores: (N,).
    """
    if keypoint_scores.shape[0] == 0:
        return np.zeros(0, np.float32)
    return keypoint_scores.mean(axis=1) + box_scores + 1.25 * keypoint_scores.max(axis=1)


def pose_nms(people: People, settings: PoseNMS = PoseNMS()) -> tuple[People, list[list[int]]]:
    """Merge the poses of one image that show the same person, and drop those that show nobody.

    Args:
        people: candidates in pixels of the original image; their pose scores are not used.
        settings: the constants.

    Returns:
        The people, in the order they were picked (highest mean joint score first), with new pose scores; and for each
        the rows of `people` that were merged into it, ascending. Boxes and box scores are the picked candidate's.
    """
    if settings.kind == "none":
        kept = People(
            people.boxes,
            people.box_scores,
            people.keypoints,
            people.keypoint_scores,
            pose_score(people.keypoint_scores, people.box_scores),
        )
        return kept, [[i] for i in range(len(people))]
    if len(people) == 0:
        return people, []

    scores = people.keypoint_scores.astype(np.float64)
    scores[scores == 0] = 1e-5
    joints = people.keypoints.astype(np.float64)
    sizes = (people.boxes[:, 2:] - people.boxes[:, :2]).max(axis=1).astype(np.float64)
    copies = _copies(joints, scores, sizes * settings.alpha, settings)

    picks: list[int] = []
    clusters: list[list[int]] = []
    alive = np.ones(len(people), bool)
    for pick in np.argsort(-people.keypoint_scores.mean(axis=1, dtype=np.float64), kind="stable"):
        if alive[pick]:
            cluster = alive & copies[pick]
            alive &= ~cluster
            if scores[pick].max() >= settings.score_threshold:
                picks.append(int(pick))
                clusters.append([int(i) for i in np.flatnonzero(cluster)])

    merged_joints = joints[picks]
    merged_scores = scores[picks]
    for row, (pick, cluster) in enumerate(zip(picks, clusters, strict=True)):
        if len(cluster) > 1:
            radius = min(sizes[pick] * settings.alpha, _MERGE_LIMIT_PX)
            merged_joints[row], merged_scores[row] = _merge(joints[cluster], scores[cluster], joints[pick], radius)

    span = merged_joints.max(axis=1) - merged_joints.min(axis=1)  # zero rows are fine: K is at least 1
    keep = (merged_scores.max(axis=1) >= settings.score_threshold) & (
        2.25 * span[:, 0] * span[:, 1] >= settings.area_threshold
    )
    kept_scores = merged_scores[keep].astype(np.float32)
    box_scores = people.box_scores[picks][keep]
    result = People(
        people.boxes[picks][keep],
        box_scores,
        merged_joints[keep],
        kept_scores,
        pose_score(kept_scores, box_scores),
    )
    return result, [cluster for cluster, kept in zip(clusters, keep, strict=True) if kept]


def _copies(joints: np.ndarray, scores: np.ndarray, reference: np.ndarray, settings: PoseNMS) -> np.ndarray:
    """(N, N) bool: whether pose j, seen from pick i, is a copy of it. A pick is always its own."""
    num_people, num_joints = scores.shape
    weights, scale = _joint_groups(num_joints)
    confidence = np.tanh(scores / settings.delta1)
    limit = np.minimum(reference, _MATCH_LIMIT_PX)
    copies = np.empty((num_people, num_people), bool)
    rows = max(1, _ROWS_PER_BLOCK // (num_people * num_joints))
    for start in range(0, num_people, rows):
        block = slice(start, start + rows)
        distances = np.linalg.norm(joints[block, None] - joints[None], axis=-1) * scale  # (rows, N, K)
        agreement = (distances <= 1) * confidence[block, None] * confidence[None]
        similarity = (agreement + settings.mu * np.exp(-distances / settings.delta2)) @ weights
        matches = (distances <= limit[block, None, None]) @ weights
        copies[block] = (similarity > settings.gamma) | (matches >= settings.match_threshold)
    np.fill_diagonal(copies, True)
    return copies


def _joint_groups(num_joints: int) -> tuple[np.ndarray, np.ndarray]:
    """Per-joint weights and distance scales.

    A body counts every joint once. A whole body takes the means over body, face and hands, with distances scaled 1,
    1.9 and 0.55; weighted so that identical poses reach the similarity of a 17-joint body, which the constants are for.
    """
    weights, scale = np.ones(num_joints), np.ones(num_joints)
    if num_joints in _WHOLE_BODY:
        hands = slice(num_joints - _NUM_HAND_JOINTS, num_joints)
        face = slice(hands.start - _NUM_FACE_JOINTS, hands.start)
        body = slice(0, face.start)
        for group, group_scale in ((body, 1.0), (face, 1.9), (hands, 0.55)):
            weights[group] = 17 / 3 / (group.stop - group.start)
            scale[group] = group_scale
    return weights, scale


def _merge(joints: np.ndarray, scores: np.ndarray, pick: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Score-weighted mean, joint by joint, of the (M, K, 2) poses within `radius` pixels of the (K, 2) pick."""
    near = np.linalg.norm(joints - pick, axis=-1) <= radius
    weighted = np.where(near, scores, 0.0)
    weights = weighted / weighted.sum(axis=0)
    return np.einsum("mk,mkc->kc", weights, joints), (weights * scores).sum(axis=0)
