"""Tracks of a reduced run: from tables/images and tables/people to tables/tracks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, parsing
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.columns import PERSON_COLUMNS, people_from_arrow
from pipeline.run.tables import read_table, table_skeleton
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.association import FramePeople, track_people

_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("person", pa.int32()),
        ("video", pa.string()),
        ("frame", pa.int64()),
        ("seconds", pa.float64()),
        ("track_id", pa.int64()),
    ]
)
_FILE = "00000.parquet"
_VERSION = "1"  # increased whenever the same settings may give other tracks
_PEOPLE = [column.name for column in PERSON_COLUMNS]


class TrackTotals(NamedTuple):
    """Counts of tables/tracks.

    Attributes:
        people: in frames of videos.
        tracked: of these, the people with a track.
    """

    videos: int
    tracks: int
    people: int
    tracked: int

    def line(self, run: Run) -> str:
        """A line for a terminal."""
        return (
            f"tracks:    {run.path('tables', 'tracks')} ({self.tracks} in {self.videos} videos; {self.tracked} of "
            f"{self.people} people in frames)"
        )


class _Frame(NamedTuple):
    image_id: str
    video: str
    frame: int
    seconds: float
    people: People


def write_tracks(run: Run, settings: TrackingSettings, reuse: bool) -> TrackTotals | None:
    """Follow the people of each video of a reduced run, and write tables/tracks; None if the run has no videos.

    One video at a time is in memory: numbers alone, a few hundred bytes a person.

    Args:
        reuse: keep tracks that were made with these settings; only if the other tables have not changed since.

    Raises:
        UserError: the frames of a video are not together in the tables.
    """
    schema = _SCHEMA.with_metadata({"tracking": settings.model_dump_json(), "version": _VERSION})
    uri = run.path("tables", "tracks", _FILE)
    if not (reuse and _has_metadata(uri, schema)):
        sigmas = np.array(table_skeleton(run.uri).oks_sigmas)
        videos = groupby(_frames(run), key=lambda frame: frame.video)
        first = next(videos, None)
        if first is None:
            return None
        seen: set[str] = set()
        with storage.open_write(uri) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for video, frames in chain([first], videos):
                if video in seen:
                    raise UserError(
                        f"the frames of {video} are not together in {run.uri}, so they cannot be tracked; sort the "
                        "list of the input"
                    )
                seen.add(video)
                in_order = sorted(frames, key=lambda frame: frame.frame)
                writer.write_table(_track_video(in_order, sigmas, settings, schema))
    return _totals(run)


def _has_metadata(uri: str, schema: pa.Schema) -> bool:
    if not storage.exists(uri):
        return False
    with parsing(uri, "a table"), storage.open_read(uri, sequential=False) as stream:
        stored = pq.read_schema(stream).metadata or {}
    return all(stored.get(key) == value for key, value in schema.metadata.items())


def _totals(run: Run) -> TrackTotals:
    people = tracked = 0
    videos: set[str] = set()
    tracks: set[tuple[str, int]] = set()
    for table in read_table(run.uri, "tracks", ["video", "track_id"]):
        people += table.num_rows
        tracked += table.num_rows - table["track_id"].null_count
        videos.update(table["video"].unique().to_pylist())
        tracks.update((row["video"], row["track_id"]) for row in table.drop_null().to_pylist())
    return TrackTotals(len(videos), len(tracks), people, tracked)


def _track_video(frames: list[_Frame], sigmas: np.ndarray, settings: TrackingSettings, schema: pa.Schema) -> pa.Table:
    numbers = track_people(
        (FramePeople(f.seconds, f.people.boxes, f.people.keypoints, f.people.keypoint_scores) for f in frames),
        sigmas,
        settings,
    )
    rows = [
        (frame.image_id, person, frame.video, frame.frame, frame.seconds, int(number) or None)
        for frame, tracks in zip(frames, numbers, strict=True)
        for person, number in enumerate(tracks)
    ]
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


def _frames(run: Run) -> Iterator[_Frame]:
    """The frames of videos with the status ok, in the order of the tables, with their people."""
    people = _PeopleInOrder(run)
    for table in read_table(run.uri, "images", ["image_id", "video", "frame", "seconds", "status", "num_people"]):
        for row in table.to_pylist():
            found = people.take(row["num_people"])
            if row["video"] is not None and row["status"] == "ok" and row["seconds"] is not None:
                yield _Frame(row["image_id"], row["video"], row["frame"], row["seconds"], found)


class _PeopleInOrder:
    """The people of tables/people, which has the order of tables/images."""

    def __init__(self, run: Run) -> None:
        self._tables = (people_from_arrow(table.select(_PEOPLE)) for table in read_table(run.uri, "people"))
        self._left = People.empty(len(table_skeleton(run.uri)))

    def take(self, count: int) -> People:
        """The next people."""
        while len(self._left) < count:
            self._left = People.concatenate([self._left, next(self._tables)])
        taken, self._left = self._left[:count], self._left[count:]
        return taken
