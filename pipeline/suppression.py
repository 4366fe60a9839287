"""Suppression of duplicate people in an image: parametric pose NMS and simpler kinds of NMS.

Parametric pose NMS merges the candidates of one person into one pose. It compares poses joint by joint, and not boxes,
so that two people who overlap are both kept. Fang et al., RMPE: Regional Multi-person Pose Estimation, ICCV 2017,
section 3.3, with the constants of its later releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple

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
_MIN_SCORE = 1e-5
_PUBLISHED_MATCH_DIVISOR = 8
_DISTANCES_PER_BLOCK = 1 << 22  # joint distances in memory at a time


@dataclass(frozen=True)
class PoseNMS:
    """The suppression of duplicate candidates, and the score of a person.

    Constants that are None take the published value for the head and the skeleton.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    kind: Literal["pose", "oks", "soft_oks", "box", "none"] = described(
        "pose",
        "pose: parametric pose NMS; oks: keep the best of similar poses; soft_oks: lower the scores of similar poses; "
        "box: NMS of the boxes; none: keep all",
    )
    head: Literal["auto", "heatmap", "regression"] = described(
        "auto", "pose: constants for whole-body skeletons; auto: those for the output of the pose network"
    )
    delta1: float | None = described(None, "pose: scale of the joint scores in the similarity; by default 1")
    mu: float | None = described(
        None, "pose: weight of the distances in the similarity; by default 1.7 (regressed whole body: 1.65)"
    )
    delta2: float | None = described(
        None, "pose: scale of the distances in the similarity, pixels; by default 2.65 (regressed whole body: 8)"
    )
    gamma: float | None = described(
        None, "pose: poses with a higher similarity are one person; by default 22.48 (regressed whole body: 3.6)"
    )
    match_threshold: float | None = described(
        None, "pose: poses with this many matching joints are one person; by default 5 (regressed whole body: 3)"
    )
    alpha: float | None = described(
        None,
        "pose: joints match within this share of the box's longer side, at most 7 pixels; by default 0.1 (regressed "
        "whole body: 0.15)",
    )
    score_threshold: float | None = described(
        None,
        "pose: minimum score of a person's best joint; by default 0.3 (regressed whole body: 0.01); soft_oks: minimum "
        "score of a person; by default 0.3",
    )
    area_threshold: float = described(
        0.0, "pose: minimum area of the joints' bounding box, enlarged 1.5 times, pixels squared"
    )
    shift: float = described(
        0.0, "pose: added to all coordinates at the end, pixels; -0.3 in the first PyTorch release"
    )
    oks_threshold: float = described(0.9, "oks: poses with a higher OKS are one person; soft_oks: scale of the decay")
    box_iou: float = described(0.6, "box: boxes with at least this IoU are one person")
    score: Literal["sum", "mean", "product", "box"] = described(
        "sum",
        "score of a person; sum: mean joint score + box score + 1.25 x best joint score; mean: mean joint score; "
        "product: mean joint score x box score; box: box score",
    )
    keypoint_threshold: float = described(0.0, "joints with a lower score do not count in the mean joint score")
    max_people: int | None = described(
        None, "maximum number of people per image, those with the best scores; by default no limit"
    )


_OF_EVERY_KIND = {"kind", "score", "keypoint_threshold", "max_people"}
_OF_KIND = {
    "pose": {"head", "delta1", "mu", "delta2", "gamma", "match_threshold", "alpha", "score_threshold"}
    | {"area_threshold", "shift"},
    "oks": {"oks_threshold"},
    "soft_oks": {"oks_threshold", "score_threshold"},
    "box": {"box_iou"},
    "none": set(),
}


def unused_settings(settings: PoseNMS) -> list[str]:
    """Names of the settings that were changed and are not used by the kind of suppression."""
    used = _OF_EVERY_KIND | _OF_KIND[settings.kind]
    return [f.name for f in fields(settings) if f.name not in used and getattr(settings, f.name) != f.default]


@dataclass(frozen=True)
class _Constants:
    """The constants of parametric pose NMS."""

    delta1: float
    mu: float
    delta2: float
    gamma: float
    match_threshold: float
    alpha: float
    score_threshold: float


_HEATMAP = _Constants(1.0, 1.7, 2.65, 22.48, 5.0, 0.1, 0.3)
_REGRESSION = _Constants(1.0, 1.65, 8.0, 3.6, 3.0, 0.15, 0.01)


class _Group(NamedTuple):
    """A group of joints of a whole body, and how it counts.

    Attributes:
        joints: of the group.
        reach: factor of the distances at which joints still count as near.
        score_weight, distance_weight: of the two terms of the similarity.
    """

    joints: slice
    reach: float
    score_weight: float
    distance_weight: float


def _groups(num_joints: int) -> tuple[_Group, ...]:
    """Body, face and hands; the face may be farther away than the body, hands less (AlphaPose, TPAMI 2022)."""
    hands = num_joints - _NUM_HAND_JOINTS
    face = hands - _NUM_FACE_JOINTS
    return (
        _Group(slice(0, face), 1.0, 1.0, 1.0),
        _Group(slice(face, hands), 1.9, 1.0, 1.0),
        _Group(slice(hands, num_joints), 0.55, 0.1, 1.5),
    )


def _constants(settings: PoseNMS, num_joints: int) -> _Constants:
    published = _REGRESSION if settings.head == "regression" and num_joints in _WHOLE_BODY else _HEATMAP
    named = {name: getattr(settings, name) for name in published.__dataclass_fields__}
    return replace(published, **{name: value for name, value in named.items() if value is not None})


def pose_score(keypoint_scores: np.ndarray, box_scores: np.ndarray, settings: PoseNMS = PoseNMS()) -> np.ndarray:
    """Scores of people; by default, as published, mean joint score + box score + 1.25 x best joint score.

    Args:
        keypoint_scores: (N, K).
        box_scores: (N,).
        settings: the formula.

    Returns:
        (N,).
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
        settings: kind of suppression and its constants.
        oks_sigmas: (K,) of the skeleton, required by the kinds that compare poses by OKS.

    Returns:
        The people, best first (pose: highest mean joint score of the picked candidate first), with new pose scores and
        with the boxes and box scores of the picked candidates; and for each person the rows of `people` that were
        merged into it, ascending.

    Raises:
        UserError: an OKS kind without sigmas.
    """
    kept, rows = _suppress(people, settings, oks_sigmas)
    if settings.max_people is None or len(kept) <= settings.max_people:
        return kept, rows
    best = np.sort(np.argsort(-kept.pose_scores, kind="stable")[: settings.max_people])
    return kept[best], [rows[i] for i in best]


def _suppress(people: People, settings: PoseNMS, oks_sigmas: Sequence[float] | None) -> tuple[People, list[list[int]]]:
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
        raise UserError(f"--suppression.kind {settings.kind} needs the OKS sigmas of the skeleton")
    similarity = _oks(people, np.asarray(oks_sigmas, np.float64))
    if settings.kind == "oks":
        return _greedy(scored, scored.pose_scores, similarity > settings.oks_threshold)
    return _soft(scored, similarity, settings)


def _greedy(people: People, scores: np.ndarray, similar: np.ndarray) -> tuple[People, list[list[int]]]:
    """Greedy NMS: pick the best candidate, drop the similar ones, repeat. `similar` is (N, N) bool."""
    alive = np.ones(len(people), bool)
    picks, clusters = [], []
    for pick in np.argsort(-scores, kind="stable"):
        if alive[pick]:
            cluster = alive & similar[pick]
            cluster[pick] = True
            alive &= ~cluster
            picks.append(int(pick))
            clusters.append([int(i) for i in np.flatnonzero(cluster)])
    return people[picks], clusters


def _soft(people: People, similarity: np.ndarray, settings: PoseNMS) -> tuple[People, list[list[int]]]:
    """Soft NMS (Bodla et al., ICCV 2017) by OKS: a Gaussian lowers the scores of poses similar to a better one.

    Candidates whose pose score falls below the threshold are dropped.
    """
    min_score = _HEATMAP.score_threshold if settings.score_threshold is None else settings.score_threshold
    scores = people.pose_scores.astype(np.float64)
    remaining = list(range(len(people)))
    picks: list[int] = []
    while remaining:
        pick = max(remaining, key=lambda i: (scores[i], -i))
        remaining.remove(pick)
        if scores[pick] < min_score:
            break
        picks.append(pick)
        scores[remaining] *= np.exp(-(similarity[pick, remaining] ** 2) / settings.oks_threshold)
    return replace(people, pose_scores=scores)[picks], [[pick] for pick in picks]


def _oks(people: People, sigmas: np.ndarray) -> np.ndarray:
    """(N, N) object keypoint similarity of poses, over all joints, with the mean area of the two boxes (cocoeval)."""
    area = boxes.areas(people.boxes.astype(np.float64))
    mean_area = (area[:, None] + area[None]) / 2 + np.spacing(1)
    joints = people.keypoints.astype(np.float64)
    similarity = np.empty_like(mean_area)
    rows = max(1, _DISTANCES_PER_BLOCK // (len(people) * len(sigmas)))
    for start in range(0, len(people), rows):
        block = slice(start, start + rows)
        squared = ((joints[block, None] - joints[None]) ** 2).sum(axis=-1)
        exponent = squared / (2 * sigmas) ** 2 / mean_area[block, :, None] / 2
        similarity[block] = np.exp(-exponent).mean(axis=-1)
    return similarity


def _parametric(people: People, settings: PoseNMS) -> tuple[People, list[list[int]]]:
    constants = _constants(settings, people.num_joints)
    scores = people.keypoint_scores.astype(np.float64)
    scores[scores == 0] = _MIN_SCORE
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
    """(N, N) bool: whether pose j is a copy of pick i. A pick is a copy of itself."""
    num_people, num_joints = scores.shape
    compare = _compare_whole_bodies if num_joints in _WHOLE_BODY else _compare_bodies
    limit = np.minimum(reference, _MATCH_LIMIT_PX)
    copies = np.empty((num_people, num_people), bool)
    rows = max(1, _DISTANCES_PER_BLOCK // (num_people * num_joints))
    for start in range(0, num_people, rows):
        block = slice(start, start + rows)
        distances = np.linalg.norm(joints[block, None] - joints[None], axis=-1)  # (rows, N, K)
        similarity, matches = compare(distances, scores[block], scores, limit[block], constants)
        copies[block] = (similarity > constants.gamma) | (matches >= constants.match_threshold)
    np.fill_diagonal(copies, True)
    return copies


def _compare_bodies(
    distances: np.ndarray, picks: np.ndarray, others: np.ndarray, limit: np.ndarray, constants: _Constants
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity and number of matching joints of each pair.

    Args:
        distances: (P, N, K) between the joints of P picks and N poses, pixels.
        picks: (P, K) scores of the joints of the picks.
        others: (N, K) scores of the joints of the poses.
        limit: (P,) distance up to which a joint matches, pixels.
        constants: of the published method.

    Returns:
        (P, N) each.
    """
    agreement = _agreement(distances, picks, others, constants)
    similarity = (agreement + constants.mu * np.exp(-distances / constants.delta2)).sum(axis=2)
    return similarity, (distances <= limit[:, None, None]).sum(axis=2)


def _compare_whole_bodies(
    distances: np.ndarray, picks: np.ndarray, others: np.ndarray, limit: np.ndarray, constants: _Constants
) -> tuple[np.ndarray, np.ndarray]:
    """Like `_compare_bodies`, for a body with face and hands: the similarity is a weighted sum of means over groups.

    The matching joints are counted relative to the confident joints of the pick, so that a pose with few of them has as
    many copies as one with all.
    """
    num_joints = distances.shape[2]
    agreement = _agreement(distances, picks, others, constants)
    confident = others >= constants.score_threshold
    similarity = np.zeros(distances.shape[:2])
    matches = np.zeros(distances.shape[:2])
    for group in _groups(num_joints):
        j = group.joints
        near = confident[None, :, j] * np.exp(-distances[:, :, j] / (constants.delta2 * group.reach))
        similarity += group.score_weight * agreement[:, :, j].mean(axis=2)
        similarity += constants.mu * group.distance_weight * near.mean(axis=2)
        matches += (distances[:, :, j] <= group.reach * limit[:, None, None]).sum(axis=2)
    counted = (picks > constants.score_threshold / 2).sum(axis=1)[:, None]
    share = np.where(counted > 0, matches / np.maximum(counted, 1), 0.0)
    # The published method divides by the number of remaining poses, too, so that more copies suppress less; this is its
    # value for two poses.
    return similarity, share * num_joints / _PUBLISHED_MATCH_DIVISOR


def _agreement(distances: np.ndarray, picks: np.ndarray, others: np.ndarray, constants: _Constants) -> np.ndarray:
    """(P, N, K) product of the joints' confidences where they are within a pixel."""
    confidence = np.tanh(picks / constants.delta1)[:, None] * np.tanh(others / constants.delta1)[None]
    return (distances <= 1) * confidence


def _merge(joints: np.ndarray, scores: np.ndarray, pick: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Score-weighted mean of each joint, over the (M, K, 2) poses that have it within `radius` pixels of the pick."""
    near = np.linalg.norm(joints - pick, axis=-1) <= radius
    weighted = np.where(near, np.maximum(scores, _MIN_SCORE), 0.0)  # raw maxima may be negative
    weights = weighted / weighted.sum(axis=0)
    return np.einsum("mk,mkc->kc", weights, joints), (weights * scores).sum(axis=0)
