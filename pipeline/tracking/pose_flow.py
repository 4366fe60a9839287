"""Tracks by pose flows, after Xiu et al. (Pose Flow, BMVC 2018), from poses alone, without pixels.

A flow is the path of poses with the largest sum of confidences, of which each is close to the one before. Flows that
stay close to a more confident one are duplicates, and pieces of a flow that follow each other in time are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.frames import FramePeople

_CONFIDENT = 0.2  # score from which a joint is compared
_REACH = 0.1  # heights of the box: joints that are nearer agree, as in the paper
_SPEED = 1.0  # heights a second: by how much the reach grows with time
_WINDOW = 20  # frames that a path looks ahead, as in the paper
_DUPLICATE = 0.5  # median agreement of two flows in their common frames
_RECENT = 0.2  # seconds from which the speed of a flow is taken


@dataclass(eq=False)
class _Flow:
    """Places of people, as frame and number, in the order of the frames, and their mean confidence."""

    places: list[tuple[int, int]]
    confidence: float


def find_flows(frames: Sequence[FramePeople], settings: TrackingSettings) -> list[list[tuple[int, int]]]:
    """The people of a video that belong together: lists of frame and number of the person, in order.

    Args:
        frames: in order of presentation; people in a fixed order.
        settings: similarity (the share of joints that agree), and for how long a person may be unseen.
    """
    confidences = [_confidences(frame) for frame in frames]
    links = [_agreement(a, b) if _connected(a, b, settings) else None for a, b in pairwise(frames)]
    free = [np.ones(len(frame.boxes), bool) for frame in frames]
    flows: list[_Flow] = []
    for start in range(len(frames)):
        for person in np.argsort(-confidences[start], kind="stable"):
            if free[start][person] and confidences[start][person] > 0:
                places = _path((start, int(person)), confidences, links, free, settings.similarity)
                for frame, number in places:
                    free[frame][number] = False
                flows.append(_Flow(places, float(np.mean([confidences[f][n] for f, n in places]))))
    kept = _without_duplicates(flows, frames, settings.sure)
    return [flow.places for flow in _joined(kept, frames, settings)]


def _confidences(frame: FramePeople) -> np.ndarray:
    """(N,) score of the box, and the mean and the largest of the joints."""
    if not len(frame.boxes):
        return np.zeros(0)
    joints = frame.keypoint_scores if frame.keypoint_scores.shape[1] else frame.box_scores[:, None]
    return frame.box_scores + joints.mean(axis=1) + joints.max(axis=1)


def _connected(first: FramePeople, second: FramePeople, settings: TrackingSettings) -> bool:
    return not second.first_of_scene and 0 <= second.seconds - first.seconds <= settings.memory


def _agreement(
    first: FramePeople, second: FramePeople, moved: np.ndarray | float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """(N, M) share of the joints that are within reach, of those that are confident in both; by boxes without any.

    Args:
        moved: (N, 2) by how much the people of the first frame are expected to move, pixels.
        seconds: time between the frames, if it is not that of the frames.
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
    return np.where(count > 0, close.sum(axis=2) / np.maximum(count, 1), by_boxes)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M, K) distances of the points (N, K, 2) and (M, K, 2)."""
    return np.linalg.norm(first[:, None] - second[None], axis=3)


def _path(
    start: tuple[int, int],
    confidences: list[np.ndarray],
    links: list[np.ndarray | None],
    free: list[np.ndarray],
    least: float,
) -> list[tuple[int, int]]:
    """The path from a person with the largest sum of confidences, window after window."""
    places = [start]
    while True:
        first, person = places[-1]
        totals = np.full(len(confidences[first]), -np.inf)
        totals[person] = 0.0
        origins: list[np.ndarray] = []
        best: list[np.ndarray] = [totals]
        for frame in range(first, min(first + _WINDOW, len(links))):
            link = links[frame]
            if link is None or not len(confidences[frame + 1]):
                break
            steps = np.where((link >= least) & free[frame + 1], link, -np.inf)  # of equal sums the closer path
            reached = totals[:, None] + steps + confidences[frame + 1]
            totals = reached.max(axis=0)
            if not np.isfinite(totals).any():
                break
            origins.append(reached.argmax(axis=0))
            best.append(totals)
        if not origins:
            return places
        person = int(best[-1].argmax())
        path = [person]
        for origin in origins[:0:-1]:
            person = int(origin[person])
            path.append(person)
        places += [(first + 1 + i, number) for i, number in enumerate(reversed(path))]


def _without_duplicates(flows: list[_Flow], frames: Sequence[FramePeople], sure: float) -> list[_Flow]:
    """The flows that stay apart from all more confident ones, and have a person with a sure box."""
    kept: list[_Flow] = []
    numbers: list[dict[int, int]] = []
    for flow in sorted(flows, key=lambda flow: (-flow.confidence * len(flow.places), flow.places[0])):
        if max(frames[f].box_scores[n] for f, n in flow.places) < sure:
            continue
        own = dict(flow.places)
        if not any(_closeness(own, other, frames) > _DUPLICATE for other in numbers):
            kept.append(flow)
            numbers.append(own)
    return kept


def _closeness(flow: dict[int, int], other: dict[int, int], frames: Sequence[FramePeople]) -> float:
    """The median agreement of two flows in their common frames; 0 without any."""
    shared = flow.keys() & other.keys()
    if not shared:
        return 0.0
    values = [
        _agreement(frames[f].rows(np.array([flow[f]])), frames[f].rows(np.array([other[f]])))[0, 0] for f in shared
    ]
    return float(np.median(values))


def _joined(flows: list[_Flow], frames: Sequence[FramePeople], settings: TrackingSettings) -> list[_Flow]:
    """Flows that continue another one within the memory, the closest first."""
    pairs = []
    for a, first in enumerate(flows):
        for b, second in enumerate(flows):
            if a != b and (agreement := _continues(first, second, frames, settings)) >= settings.similarity:
                pairs.append((-agreement, first.places[-1], second.places[0], a, b))
    following: dict[int, int] = {}
    for *_, a, b in sorted(pairs):
        if a not in following and b not in following.values():
            following[a] = b
    joined = []
    for a in range(len(flows)):
        if a not in following.values():
            places = list(flows[a].places)
            while a in following:
                a = following[a]
                places += flows[a].places
            joined.append(_Flow(places, flows[a].confidence))
    return joined


def _continues(first: _Flow, second: _Flow, frames: Sequence[FramePeople], settings: TrackingSettings) -> float:
    """How well the beginning of a flow agrees with where another one would have gone; 0 if it cannot be."""
    (last, person), (next_, successor) = first.places[-1], second.places[0]
    gap = frames[next_].seconds - frames[last].seconds
    if not (last < next_ and 0 < gap <= settings.memory):
        return 0.0
    if any(frame.first_of_scene for frame in frames[last + 1 : next_ + 1]):
        return 0.0
    recent = [(f, n) for f, n in first.places if frames[f].seconds >= frames[last].seconds - _RECENT]
    (early, before), here = recent[0], frames[last].rows(np.array([person]))
    moved = np.zeros((1, 2))
    if early < last:
        path = (here.boxes - frames[early].boxes[[before]]).reshape(1, 2, 2).mean(axis=1)
        moved = path / (frames[last].seconds - frames[early].seconds) * gap
    there = frames[next_].rows(np.array([successor]))
    return float(_agreement(here, there, moved, min(gap, _RECENT))[0, 0])
