"""Tracks of a person who left and came back, joined by what the person looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.tracking.frames import FramePeople, Places

_ALIKE = 0.9  # cosine of two mean appearances
_FASTEST = 3.0  # heights a second: nobody reaches a place that is farther away
_LARGEST_RATIO = 1.5  # of the heights
_RECENT = 10  # frames at the ends of a track whose median box is compared


class _Piece(NamedTuple):
    """A track: its mean appearance, and its box where it begins and where it ends."""

    places: Places
    looks: np.ndarray
    first: np.ndarray
    last: np.ndarray


def reunite(tracks: Sequence[Places], frames: Sequence[FramePeople], seconds: float) -> list[Places]:
    """Join tracks with those that continue them within some seconds, the most alike first.

    Tracks are never joined across a cut, if they overlap in time, if the person would have had to be faster than 3
    heights a second, or if the heights differ by half. A wrong join is worse than none.

    Args:
        frames: with `appearance`.
    """
    scenes = np.cumsum([frame.first_of_scene for frame in frames])
    pieces = [_piece(places, frames) for places in tracks]
    pairs = []
    for a, first in enumerate(pieces):
        for b, second in enumerate(pieces):
            alike = float(first.looks @ second.looks)
            if a != b and alike >= _ALIKE and _possible(first, second, frames, scenes, seconds):
                pairs.append((-alike, first.places[-1], second.places[0], a, b))
    following: dict[int, int] = {}
    taken: set[int] = set()
    for *_, a, b in sorted(pairs):
        if a not in following and b not in taken:
            following[a] = b
            taken.add(b)
    joined = []
    for start in range(len(pieces)):
        if start not in taken:
            places, piece = list(pieces[start].places), start
            while piece in following:
                piece = following[piece]
                places += pieces[piece].places
            joined.append(places)
    return joined


def _piece(places: Places, frames: Sequence[FramePeople]) -> _Piece:
    looks = np.sum([frames[frame].looks[person] for frame, person in places], axis=0)
    boxes = np.array([frames[frame].boxes[person] for frame, person in places])
    return _Piece(
        places,
        looks / max(float(np.linalg.norm(looks)), 1e-12),
        np.median(boxes[:_RECENT], axis=0),
        np.median(boxes[-_RECENT:], axis=0),
    )


def _possible(first: _Piece, second: _Piece, frames: Sequence[FramePeople], scenes: np.ndarray, seconds: float) -> bool:
    """Whether a track may go on as another one."""
    end, start = first.places[-1][0], second.places[0][0]
    gap = frames[start].seconds - frames[end].seconds
    if not (end < start and 0 < gap <= seconds and scenes[end] == scenes[start]):
        return False
    heights = np.array([first.last[3] - first.last[1], second.first[3] - second.first[1]])
    if heights.max() > _LARGEST_RATIO * max(float(heights.min()), 1.0):
        return False
    distance = np.linalg.norm((first.last[:2] + first.last[2:] - second.first[:2] - second.first[2:]) / 2)
    return bool(distance <= _FASTEST * gap * heights.max())
