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
from pipeline.run.tables import table_names
from pipeline.tracking.tables import tracks_by_video


class Tracked(NamedTuple):
    """A person with a track in a frame.

    Attributes:
        person: number in tables/people or tables/weak; None if it was filled in between frames.
        box: (4,) x1 y1 x2 y2, pixels.
    """

    track: int
    person: int | None
    box: np.ndarray


class Frame(NamedTuple):
    """A frame: its row of tables/images, its people, and its tracks; without any if its status is not ok.

    The people include weak ones, so that each tracked person is there.

    Attributes:
        position: in the video, from 0; a sequence of images counts from its first number.
    """

    image: dict[str, Any]
    people: People
    tracked: list[Tracked]
    position: int

    @property
    def ok(self) -> bool:
        return bool(self.image["status"] == "ok")


class Video(NamedTuple):
    """A video in the order of its frames; those that were not annotated are left out.

    Attributes:
        length: number of frames, also of those that were not annotated.
    """

    name: str
    frames: list[Frame]
    length: int


def tracked_videos(run: Run) -> Iterator[Video]:
    """The videos of a run, one in memory at a time.

    Raises:
        UserError: the run has no frames of videos, or no tracks.
    """
    if not table_names(run.uri, "tracks"):
        raise UserError(
            f"{run.uri} has no tracks: it has no videos, or they are not tracked yet; run jobs/reduce.py {run.uri}"
        )
    lengths = {s.keys[0]: s.video.video_frames for s in run.manifest().shards() if s.video is not None}
    tracks = tracks_by_video(run)
    following = next(tracks, None)
    rows_and_people = images_with_people(run, further=["pts"], failed=True, weak=True)
    images = (pair for pair in rows_and_people if pair[0]["frame"] is not None)
    for name, rows in groupby(images, key=lambda pair: pair[0]["video"]):
        people_of: dict[str, list[Tracked]] = {}
        if following is not None and following[0] == name:
            for row in following[1].filter(pc.is_valid(following[1]["track_id"])).to_pylist():
                tracked = Tracked(row["track_id"], row["person"], np.array(row["box"]))
                people_of.setdefault(row["image_id"], []).append(tracked)
            following = next(tracks, None)
        in_order = sorted(rows, key=lambda pair: pair[0]["frame"])
        is_sequence = all(image["pts"] is None for image, _ in in_order)
        first = in_order[0][0]["frame"] if is_sequence else 0
        frames = [
            Frame(image, people, people_of.get(image["image_id"], []), image["frame"] - first)
            for image, people in in_order
        ]
        yield Video(name, frames, max(frames[-1].position + 1, lengths.get(name, 0)))
