"""People that a network found twice: skeletons that stay close to a more confident one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.tracking.frames import FramePeople, Places

_CONFIDENT = 0.2  # score from which a joint is compared
_REACH = 0.1  # heights of the box: joints that are nearer agree (Xiu et al., Pose Flow, BMVC 2018)
_SPEED = 1.0  # heights a second: by how much the reach grows with time
# Agreement from which two people of a frame may be one, and median agreement from which two tracks are. Chosen on four
# cameras that see two people cross (the demo of Pose2Sim): 0.35 to 0.5 keep their numbers.
_MAYBE, _SAME = 0.4, 0.5


def confidences_of(frame: FramePeople) -> np.ndarray:
    """(N,) score of the box, and the mean and the largest of the joints."""
    if not len(frame.boxes):
        return np.zeros(0)
    joints = frame.keypoint_scores if frame.keypoint_scores.shape[1] else frame.box_scores[:, None]
    return frame.box_scores + joints.mean(axis=1) + joints.max(axis=1)


def agreement(
    first: FramePeople,
    second: FramePeople,
    moved: np.ndarray | float = 0.0,
    seconds: float | None = None,
    without_joints: bool = True,
) -> np.ndarray:
    """(N, M) share of the joints that are within reach, of those that are confident in both; by boxes without any.

    Args:
        moved: (N, 2) by how much the people of the first frame are expected to move, pixels.
        seconds: time between the frames, if it is not that of the frames.
        without_joints: compare the corners of the boxes of people without common joints; else they do not agree.
    """
    step = second.seconds - first.seconds if seconds is None else seconds
    heights = np.maximum(first.boxes[:, 3] - first.boxes[:, 1], 1.0)
    reach = ((_REACH + _SPEED * step) * heights)[:, None]
    offsets = np.broadcast_to(np.asarray(moved), (len(heights), 2))
    corners = [frame.boxes.reshape(-1, 2, 2) for frame in (first, second)]
    near = _distances(corners[0] + offsets[:, None], corners[1]) < reach[..., None]
    by_boxes = near.mean(axis=2)
    common = (first.keypoint_scores > _CONFIDENT)[:, None] & (second.keypoint_scores > _CONFIDENT)[None]
    close = (_distances(first.keypoints + offsets[:, None], second.keypoints) < reach[..., None]) & common
    count = common.sum(axis=2)
    return np.where(count > 0, close.sum(axis=2) / np.maximum(count, 1), by_boxes if without_joints else 0.0)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M, K) distances of the points (N, K, 2) and (M, K, 2)."""
    return np.linalg.norm(first[:, None] - second[None], axis=3)


def find_duplicates(frame: FramePeople) -> np.ndarray:
    """(N,) bool, whether a person may be a copy of a more confident one."""
    close = agreement(frame, frame, without_joints=False) > _MAYBE
    kept: list[int] = []
    for person in np.lexsort((-confidences_of(frame), ~frame.surely())):  # weak people come last
        if not close[kept, person].any():
            kept.append(int(person))
    duplicate = np.ones(len(frame.boxes), bool)
    duplicate[kept] = False
    return duplicate


def merge_duplicates(
    tracks: Sequence[Places], frames: Sequence[FramePeople], confidences: Sequence[float]
) -> list[Places]:
    """Tracks that are close to each other in most of their common frames are one.

    The more confident one keeps its people; those of the other fill the frames in which it has none.
    """
    merged: list[dict[int, int]] = []
    spans: list[tuple[int, int]] = []
    for i in sorted(range(len(tracks)), key=lambda i: (-confidences[i], tracks[i][0])):
        own, first, last = dict(tracks[i]), tracks[i][0][0], tracks[i][-1][0]
        beside = [k for k, span in enumerate(spans) if span[0] <= last and span[1] >= first]
        closeness = {k: _closeness(own, merged[k], frames) for k in beside}
        closest = max(closeness, key=lambda k: closeness[k], default=None)
        if closest is not None and closeness[closest] > _SAME:
            longer = merged[closest]
            longer.update({frame: person for frame, person in own.items() if frame not in longer})
            spans[closest] = min(first, spans[closest][0]), max(last, spans[closest][1])
        else:
            merged.append(own)
            spans.append((first, last))
    return [sorted(track.items()) for track in merged]


def _closeness(track: dict[int, int], other: dict[int, int], frames: Sequence[FramePeople]) -> float:
    """The median agreement of two tracks in their common frames; 0 without any."""
    shared = track.keys() & other.keys()
    if not shared:
        return 0.0
    people = [(frames[f].rows(np.array([track[f]])), frames[f].rows(np.array([other[f]]))) for f in shared]
    return float(np.median([agreement(*pair, without_joints=False)[0, 0] for pair in people]))
