"""The videos of a run frame by frame, with their people and tracks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.tracking.tables import tracks_by_video


class Tracked(NamedTuple):
    """A person with a track in a frame.

    Attributes:
        person: number in tables/people; None if it was filled in between frames.
        box: (4,) x1 y1 x2 y2, pixels.
    """

    track: int
    person: int | None
    box: np.ndarray


class Frame(NamedTuple):
    """A frame with the status ok: its row of tables/images, its people, and its tracks."""

    image: dict[str, Any]
    people: People
    tracked: list[Tracked]

    @property
    def number(self) -> int:
        return int(self.image["frame"])


class Video(NamedTuple):
    """A video in the order of its frames."""

    name: str
    frames: list[Frame]


def tracked_videos(run: Run) -> Iterator[Video]:
    """The videos of a run, one in memory at a time.

    Raises:
        UserError: the run has no frames of videos.
    """
    tracks = tracks_by_video(run)
    following = next(tracks, None)
    images = images_with_people(run)
    count = 0
    for name, rows in groupby(images, key=lambda pair: pair[0]["video"]):
        if name is None:
            continue
        people_of: dict[str, list[Tracked]] = {}
        if following is not None and following[0] == name:
            for row in following[1].filter(pc.is_valid(following[1]["track_id"])).to_pylist():
                tracked = Tracked(row["track_id"], row["person"], np.array(row["box"]))
                people_of.setdefault(row["image_id"], []).append(tracked)
            following = next(tracks, None)
        frames = [Frame(image, people, people_of.get(image["image_id"], [])) for image, people in rows]
        yield Video(name, sorted((f for f in frames if f.image["frame"] is not None), key=lambda f: f.number))
        count += 1
    if not count:
        raise UserError(f"{run.uri} has no videos, and therefore no tracks")
