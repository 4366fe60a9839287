"""Tracks by pose flows, after Xiu et al. (Pose Flow, BMVC 2018), from poses alone, without pixels.

A flow is the path of poses with the largest sum of confidences, of which each is close to the one before. It ends where
it gains little, and all its poses have its mean confidence. Flows that stay close to a more confident one are
duplicates, and pieces of a flow that follow each other in time are joined.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.duplicates import agreement, confidences_of, merge_duplicates
from pipeline.tracking.frames import FramePeople, Places

_WINDOW = 20  # frames that a path looks ahead, as in the paper
_GAIN_SECONDS, _LEAST_GAIN = 0.5, 1 / 3  # a flow ends where it gains less than a share of its mean so far
_RECENT = 0.2  # seconds from which the speed of a flow is taken


def find_flows(frames: Sequence[FramePeople], settings: TrackingSettings) -> list[Places]:
    """The people of a video that belong together: lists of frame and number of the person, in order.

    Args:
        frames: in order of presentation; people in a fixed order.
        settings: similarity (the share of joints that agree), and for how long a person may be unseen.
    """
    confidences = [confidences_of(frame) for frame in frames]
    links = [agreement(a, b) if _connected(a, b, settings) else None for a, b in pairwise(frames)]
    free = [np.ones(len(frame.boxes), bool) for frame in frames]
    flows: list[Places] = []
    for start in range(len(frames)):
        for person in np.argsort(-confidences[start], kind="stable"):
            if free[start][person] and confidences[start][person] > 0:
                path = _path((start, int(person)), confidences, links, free, settings.similarity)
                places = _until_little_gain(path, confidences, frames)
                for frame, number in places:
                    free[frame][number] = False
                if _is_sure(places, frames, settings.sure):
                    flows.append(places)
    merged = merge_duplicates(flows, frames, [_gains(flow, confidences).mean() for flow in flows])
    return _joined(merged, confidences, frames, settings)


def _gains(places: Places, confidences: Sequence[np.ndarray]) -> np.ndarray:
    """The confidences of the poses of a flow; all its poses have their mean."""
    return np.array([confidences[frame][number] for frame, number in places])


def _connected(first: FramePeople, second: FramePeople, settings: TrackingSettings) -> bool:
    return not second.first_of_scene and 0 <= second.seconds - first.seconds <= settings.memory


def _until_little_gain(
    path: Iterable[tuple[int, int]], confidences: Sequence[np.ndarray], frames: Sequence[FramePeople]
) -> Places:
    """The first part of a path, until it gains little for a while."""
    places: Places = []
    lately: deque[tuple[float, float]] = deque()  # seconds and gains of the last places
    gained_lately = gained_before = 0.0
    for frame, number in path:
        gain = float(confidences[frame][number])
        places.append((frame, number))
        lately.append((frames[frame].seconds, gain))
        gained_lately += gain
        while lately[0][0] <= frames[frame].seconds - _GAIN_SECONDS:
            _, gain = lately.popleft()
            gained_lately, gained_before = gained_lately - gain, gained_before + gain
        before = len(places) - len(lately)
        if before and gained_lately / len(lately) < _LEAST_GAIN * gained_before / before:
            return places[:before]
    return places


def _is_sure(places: Places, frames: Sequence[FramePeople], score: float) -> bool:
    """Whether the mean box score of people who are not weak is large enough."""
    scores = [frames[frame].box_scores[number] for frame, number in places if frames[frame].surely()[number]]
    return bool(scores) and bool(np.mean(scores) >= score)


def _path(
    start: tuple[int, int],
    confidences: list[np.ndarray],
    links: list[np.ndarray | None],
    free: list[np.ndarray],
    least: float,
) -> Iterator[tuple[int, int]]:
    """The path from a person with the largest sum of confidences, window after window."""
    first, person = start
    yield start
    while True:
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
            return
        person = int(best[-1].argmax())
        path = [person]
        for origin in origins[:0:-1]:
            person = int(origin[person])
            path.append(person)
        path.reverse()
        yield from enumerate(path, first + 1)
        first, person = first + len(path), path[-1]


def _joined(
    flows: list[Places],
    confidences: Sequence[np.ndarray],
    frames: Sequence[FramePeople],
    settings: TrackingSettings,
) -> list[Places]:
    """Flows that continue another one within the memory, the closest first."""
    pairs = []
    unified = [_gains(flow, confidences).mean() for flow in flows]
    for a, first in enumerate(flows):
        for b, second in enumerate(flows):
            if a == b or unified[b] < _LEAST_GAIN * unified[a]:  # where the first one ended as it gained little
                continue
            if (agreed := _continues(first, second, frames, settings)) >= settings.similarity:
                pairs.append((-agreed, first[-1], second[0], a, b))
    following: dict[int, int] = {}
    for *_, a, b in sorted(pairs):
        if a not in following and b not in following.values():
            following[a] = b
    joined = []
    for start in range(len(flows)):
        if start not in following.values():
            places, flow = list(flows[start]), start
            while flow in following:
                flow = following[flow]
                places += flows[flow]
            joined.append(places)
    return joined


def _continues(first: Places, second: Places, frames: Sequence[FramePeople], settings: TrackingSettings) -> float:
    """How well the beginning of a flow agrees with where another one would have gone; 0 if it cannot be."""
    (last, person), (next_, successor) = first[-1], second[0]
    gap = frames[next_].seconds - frames[last].seconds
    if not (last < next_ and 0 < gap <= settings.memory):
        return 0.0
    if any(frame.first_of_scene for frame in frames[last + 1 : next_ + 1]):
        return 0.0
    recent = [(f, n) for f, n in first if frames[f].seconds >= frames[last].seconds - _RECENT]
    (early, before), here = recent[0], frames[last].rows(np.array([person]))
    moved = np.zeros((1, 2))
    if early < last:
        path = (here.boxes - frames[early].boxes[[before]]).reshape(1, 2, 2).mean(axis=1)
        moved = path / (frames[last].seconds - frames[early].seconds) * gap
    there = frames[next_].rows(np.array([successor]))
    return float(agreement(here, there, moved, min(gap, _RECENT))[0, 0])
