"""Tracks of a reduced run: from tables/images and tables/people to tables/tracks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, parsing
from pipeline.people import People
from pipeline.process.mapping import Map
from pipeline.run import Run
from pipeline.run.columns import APPEARANCE
from pipeline.run.images import images_with_people
from pipeline.run.tables import (
    DERIVED_TABLES,
    has_metadata,
    keep_tables,
    read_file,
    read_table,
    table_names,
    table_skeleton,
)
from pipeline.settings.tree import TrackingSettings
from pipeline.skeletons import Skeleton
from pipeline.tracking.association import track_people
from pipeline.tracking.cuts import find_cuts
from pipeline.tracking.frames import FramePeople
from pipeline.tracking.trajectories import Observed, Trajectory, refine

_OF_OTHER_TRACKS = ("report.html", "track_metrics.json")  # deleted when tracks change
_VERSION = "4"  # increased whenever the same settings may give other tracks


# Of a person in a frame, in tables/tracks and tables/motion.
KEYS = pa.schema(
    [
        ("image_id", pa.string()),
        ("person", pa.int32()),
        ("video", pa.string()),
        ("frame", pa.int64()),
        ("seconds", pa.float64()),
        ("track_id", pa.int64()),
        ("interpolated", pa.bool_()),
        ("weak", pa.bool_()),
    ]
)


def tracks_schema(num_joints: int) -> pa.Schema:
    """The columns of tables/tracks, see jobs/README.md."""
    positions = pa.list_(pa.list_(pa.float32(), 2), num_joints)
    return pa.schema(
        [
            *KEYS,
            ("box", pa.list_(pa.float32(), 4)),
            ("keypoints_smooth", positions),
            ("keypoint_std", pa.list_(pa.float32(), num_joints)),
            ("swapped_arms", pa.bool_()),
            ("swapped_legs", pa.bool_()),
        ]
    )


class TrackTotals(NamedTuple):
    """Counts of tables/tracks.

    Attributes:
        people: in frames of videos.
        tracked: of these, the people with a track.
        weak: people of tables/weak with a track.
        interpolated: people that were filled in between frames; they do not count as people.
    """

    videos: int
    tracks: int
    people: int
    tracked: int
    weak: int
    interpolated: int

    def line(self, run: Run) -> str:
        """A line for a terminal."""
        videos = "1 video" if self.videos == 1 else f"{self.videos} videos"
        return (
            f"tracks:    {run.path('tables', 'tracks')} ({self.tracks} in {videos}; {self.tracked} of {self.people} "
            f"detections have one, and {self.weak} weak ones; {self.interpolated} filled in)"
        )


class _Frame(NamedTuple):
    image_id: str
    video: str
    frame: int
    seconds: float
    people: People
    num_sure: int  # of the people; the others are weak
    thumbnail: bytes | None


def write_tracks(run: Run, settings: TrackingSettings, reuse: bool, map_files: Map = map) -> TrackTotals | None:
    """Follow the people of each video of a reduced run, and write tables/tracks; None if the run has no videos.

    For each file of tables/images one of tables/tracks is written, with the videos that begin in it. One video at a
    time is in memory: numbers alone, about a kilobyte for each person in a frame. Drawn videos, the page, and the
    metrics of other tracks are deleted with them.

    Args:
        reuse: keep tracks that were made with these settings; only if the other tables have not changed since.
        map_files: where the files are written.

    Raises:
        UserError: the frames of a video are not together in the tables.
    """
    videos = find_videos(run)
    if not videos:
        return None
    if settings.reunite and run.settings.output.appearance is None:
        raise UserError(f"--tracking.reunite needs appearances; {run.uri} was annotated without --output.appearance")
    names = table_names(run.uri, "images")
    metadata = {"tracking": settings.model_dump_json(), "version": _VERSION}
    if not (reuse and all(has_metadata(run.path("tables", "tracks", name), metadata) for name in names)):
        for table in DERIVED_TABLES:
            keep_tables(run.uri, table, ())
        for uri in (*run.drawn_videos(), *filter(storage.exists, map(run.path, _OF_OTHER_TRACKS))):
            storage.delete(uri)
        for _ in map_files(partial(_track_file, run, settings, metadata, videos), range(len(names))):
            pass
    return _totals(run, len(videos))


def find_videos(run: Run) -> dict[str, tuple[int, int]]:
    """The videos and sequences of a reduced run, in order, with the first and the last file of tables/images.

    Raises:
        UserError: the frames of a video are not together; other images may lie between them.
    """
    videos: dict[str, tuple[int, int]] = {}
    latest: str | None = None
    for file, name in enumerate(table_names(run.uri, "images")):
        for table in read_file(run.uri, "images", name, ["video"]):
            column = table["video"].drop_null().to_numpy(zero_copy_only=False)
            changes = np.flatnonzero(column[1:] != column[:-1]) + 1
            for video in column[[0, *changes]].tolist() if len(column) else []:
                if video != latest and video in videos:
                    raise UserError(
                        f"the frames of {video} are not together in {run.uri}, so they cannot be tracked; sort the "
                        "list of the input"
                    )
                videos[video] = (videos.get(video, (file, file))[0], file)
                latest = video
    return videos


def stored_settings(run: Run) -> TrackingSettings | None:
    """The settings with which the tracks of a run were made; None if it has none."""
    for name in table_names(run.uri, "tracks")[:1]:
        uri = run.path("tables", "tracks", name)
        with parsing(uri, "a table"), storage.open_read(uri, access="random") as stream:
            stored = pq.read_schema(stream).metadata or {}
        if stored.get(b"version") == _VERSION.encode():
            return TrackingSettings.model_validate_json(stored[b"tracking"])
    return None


def _track_file(
    run: Run, settings: TrackingSettings, metadata: dict[str, str], videos: dict[str, tuple[int, int]], file: int
) -> None:
    """Write the tracks of the videos that begin in a file of tables/images."""
    skeleton = table_skeleton(run.uri)
    schema = tracks_schema(len(skeleton)).with_metadata(metadata)
    uri = run.path("tables", "tracks", table_names(run.uri, "images")[file])
    own = {video: last for video, (first, last) in videos.items() if first == file}
    with storage.open_write(uri) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for _, frames in groupby(_frames(run, own, file), key=lambda frame: frame.video):
            in_order = sorted(frames, key=lambda frame: frame.frame)
            writer.write_table(_track_video(in_order, skeleton, settings, schema))


def tracks_by_video(run: Run, file: str | None = None) -> Iterator[tuple[str, pa.Table]]:
    """The name of each video of a run with tracks, and its rows of tables/tracks, in the order of the frames.

    Args:
        file: the only file of tables/tracks that is read.

    Raises:
        UserError: the tracks are of an earlier version.
    """
    names = [name for name in table_names(run.uri, "tracks") if file in (None, name)]
    for name in names:
        if not has_metadata(run.path("tables", "tracks", name), {"version": _VERSION}):
            raise UserError(f"the tracks of {run.uri} are of an earlier version; run jobs/reduce.py {run.uri}")
    tables = (table for name in names for table in read_file(run.uri, "tracks", name) if table.num_rows)  # of one video
    for video, pieces in groupby(tables, key=lambda table: table["video"][0].as_py()):
        yield video, pa.concat_tables(pieces)


class TrackIds:
    """The tracks of the people of a run, for a reader that goes through its images in order; one video is in memory."""

    def __init__(self, run: Run) -> None:
        self._videos = tracks_by_video(run)
        self._video: str | None = None
        self._ids: dict[str, dict[int, int]] = {}
        self._following = next(self._videos, None)

    def of(self, image: Mapping[str, Any]) -> dict[int, int]:
        """The track of each person of an image that has one, by number of the person.

        Args:
            image: a row of tables/images.
        """
        if image["video"] is None:
            return {}
        if image["video"] != self._video:
            self._video, self._ids = image["video"], {}
            if self._following is not None and self._following[0] == self._video:
                for row in self._following[1].select(["image_id", "person", "track_id"]).drop_null().to_pylist():
                    self._ids.setdefault(row["image_id"], {})[row["person"]] = row["track_id"]
                self._following = next(self._videos, None)
        return self._ids.get(image["image_id"], {})


def _totals(run: Run, videos: int) -> TrackTotals:
    people = tracked = weak = interpolated = 0
    tracks: set[tuple[str, int]] = set()
    for table in read_table(run.uri, "tracks", ["video", "track_id", "interpolated", "weak"]):
        filled, followed = (pc.sum(table[name]).as_py() or 0 for name in ("interpolated", "weak"))
        interpolated += filled
        weak += followed
        people += table.num_rows - filled - followed
        tracked += table.num_rows - filled - followed - table["track_id"].null_count
        pairs = table.select(["video", "track_id"]).drop_null().group_by(["video", "track_id"]).aggregate([])
        tracks.update((row["video"], row["track_id"]) for row in pairs.to_pylist())
    return TrackTotals(videos, len(tracks), people, tracked, weak, interpolated)


class _Row(NamedTuple):
    """A person in a frame. Without a track the place in the trajectory is unused."""

    frame: int
    person: int | None
    track: int
    place: int


def _track_video(frames: list[_Frame], skeleton: Skeleton, settings: TrackingSettings, schema: pa.Schema) -> pa.Table:
    cuts = find_cuts([frame.thumbnail for frame in frames])
    numbers = track_people(
        (_people(frame, bool(cut)) for frame, cut in zip(frames, cuts, strict=True)),
        np.array(skeleton.oks_sigmas),
        settings,
    )
    seen: dict[int, list[tuple[int, int]]] = {}  # frame and person of each track
    rows: list[_Row] = []
    for frame, tracks in enumerate(numbers):
        for person, track in enumerate(tracks.tolist()):
            if track:
                seen.setdefault(track, []).append((frame, person))
            elif person < frames[frame].num_sure:
                rows.append(_Row(frame, person, 0, 0))
    trajectories: dict[int, Trajectory] = {}
    for track, places in seen.items():
        first, last = places[0][0], places[-1][0]
        trajectories[track] = refine(_observed(frames[first : last + 1], first, places, skeleton), skeleton, settings)
        rows += [_Row(frame, person, track, frame - first) for frame, person in places]
        rows += [_Row(first + int(i), None, track, int(i)) for i in np.flatnonzero(trajectories[track].filled)]
    rows.sort(key=lambda row: (row.frame, row.person is None, row.track if row.person is None else row.person))
    return _table(rows, frames, trajectories, schema)


def _people(frame: _Frame, cut: bool) -> FramePeople:
    people = frame.people
    return FramePeople(
        frame.seconds,
        people.boxes,
        people.keypoints,
        people.keypoint_scores,
        people.box_scores,
        first_of_scene=cut,
        weak=np.arange(len(people)) >= frame.num_sure,
        looks=people.extra.get(APPEARANCE, np.zeros((len(people), 0))),
    )


def _observed(frames: list[_Frame], first: int, places: list[tuple[int, int]], skeleton: Skeleton) -> Observed:
    """A person in consecutive frames, the first of which has the number `first`."""
    count, joints = len(frames), len(skeleton)
    observed = Observed(
        np.array([frame.seconds for frame in frames]),
        np.full((count, 4), np.nan),
        np.full((count, joints, 2), np.nan),
        np.zeros((count, joints)),
    )
    for frame, person in places:
        people = frames[frame - first].people
        observed.boxes[frame - first] = people.boxes[person]
        observed.keypoints[frame - first] = people.keypoints[person]
        observed.scores[frame - first] = people.keypoint_scores[person]
    return observed


def _table(rows: list[_Row], frames: list[_Frame], trajectories: dict[int, Trajectory], schema: pa.Schema) -> pa.Table:
    joints = schema.field("keypoint_std").type.list_size
    boxes = np.zeros((len(rows), 4), np.float32)
    keypoints = np.full((len(rows), joints, 2), np.nan, np.float32)
    std = np.full((len(rows), joints), np.nan, np.float32)
    swapped = np.zeros((len(rows), 2), bool)
    for i, row in enumerate(rows):
        if row.track:
            found = trajectories[row.track]
            boxes[i], keypoints[i], std[i] = found.boxes[row.place], found.keypoints[row.place], found.std[row.place]
            swapped[i, : found.swapped.shape[1]] = found.swapped[row.place]
        else:
            boxes[i] = frames[row.frame].people.boxes[row.person or 0]
    untracked = pa.array([not row.track for row in rows], pa.bool_())
    positions = pa.FixedSizeListArray.from_arrays(pa.array(keypoints.ravel()), 2)
    columns = [
        [frames[row.frame].image_id for row in rows],
        [row.person for row in rows],
        [frames[row.frame].video for row in rows],
        [frames[row.frame].frame for row in rows],
        [frames[row.frame].seconds for row in rows],
        [row.track or None for row in rows],
        [row.person is None for row in rows],
        [row.person is not None and row.person >= frames[row.frame].num_sure for row in rows],
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        pa.FixedSizeListArray.from_arrays(positions, joints, mask=untracked),
        pa.FixedSizeListArray.from_arrays(pa.array(std.ravel()), joints, mask=untracked),
        swapped[:, 0],
        swapped[:, 1],
    ]
    return pa.Table.from_arrays(
        [
            pa.array(values, field.type) if not isinstance(values, pa.Array) else values
            for values, field in zip(columns, schema, strict=True)
        ],
        schema=schema,
    )


def _frames(run: Run, videos: Mapping[str, int], file: int) -> Iterator[_Frame]:
    """The frames with the status ok of some videos, with their people.

    Args:
        videos: all that begin in a file of tables/images, with the last file of each.
        file: number of that file.
    """
    last = max(videos.values(), default=-1)
    for row, people in images_with_people(run, further=["thumbnail"], start=file, weak=True):
        if row["file"] > last:
            return
        if row["video"] in videos and row["seconds"] is not None:
            place = (row["image_id"], row["video"], row["frame"], row["seconds"])
            yield _Frame(*place, people, row["num_people"], row["thumbnail"])
