"""Motion of a reduced run: tables/motion with a row for each person, and tables/events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.motion.angles import ANGLES, measure
from pipeline.motion.centre_of_mass import centre_of_mass
from pipeline.motion.events import MEASURES
from pipeline.motion.gait import gait_events
from pipeline.motion.jump import Movement, jump_events
from pipeline.motion.views import find_views
from pipeline.people import People
from pipeline.process.mapping import Map
from pipeline.run import Run
from pipeline.run.columns import list_values
from pipeline.run.images import images_with_people
from pipeline.run.tables import has_metadata, keep_tables, read_table, table_names, table_skeleton
from pipeline.settings.tree import TrackingSettings
from pipeline.skeletons import Skeleton
from pipeline.tracking.tables import KEYS, tracks_by_video

_VERSION = "3"  # increased whenever the same tracks may give other motion
_LEAST_SCORE = 0.2  # of the joints of people without a track
GOOD_ERROR = 3.0  # degrees
_IMAGES_AT_A_TIME = 1024
_SCHEMA = pa.schema(
    [
        *KEYS,
        ("view", pa.string()),
        ("facing", pa.int8()),
        ("com", pa.list_(pa.float32(), 2)),
        ("com_std", pa.float32()),
        ("com_mass", pa.float32()),
        *((f"{angle.name}{end}", pa.float32()) for angle in ANGLES for end in ("", "_std")),
    ]
)
_EVENTS = pa.schema(
    [
        ("video", pa.string()),
        ("track_id", pa.int64()),
        ("event", pa.string()),
        ("side", pa.string()),
        ("seconds", pa.float64()),
        ("frame", pa.int64()),
        *((name, pa.float64()) for name in MEASURES),
    ]
)


class MotionTotals(NamedTuple):
    """Counts of tables/motion and tables/events.

    Attributes:
        people: rows.
        angles: joint angles with a standard error, of people who were not filled in.
        good: of these, those with an error below 3 degrees.
    """

    people: int
    events: int
    angles: int
    good: int

    def line(self, run: Run) -> str:
        """A line for a terminal."""
        share = f"{self.good / self.angles:.0%} of the angles have" if self.angles else "no angle has"
        return (
            f"motion:    {run.path('tables', 'motion')} ({self.people} people, {self.events} events; {share} a "
            f"standard error below {GOOD_ERROR:.0f} degrees)"
        )


def write_motion(run: Run, settings: TrackingSettings, reuse: bool, map_files: Map = map) -> MotionTotals:
    """Write tables/motion and tables/events of a reduced run whose tracks are written; one video is in memory.

    Args:
        settings: with which the tracks were made.
        reuse: keep tables that were made with these settings; only if the other tables have not changed since.
        map_files: where the files are written, one for each file of tables/images.
    """
    names = table_names(run.uri, "images")
    metadata = {"tracking": settings.model_dump_json(), "version": _VERSION}
    if not (reuse and all(has_metadata(run.path("tables", "motion", name), metadata) for name in names)):
        for _ in map_files(partial(_write_file, run, metadata), range(len(names))):
            pass
        for table in ("motion", "events"):
            keep_tables(run.uri, table, names)
    return _totals(run)


def _write_file(run: Run, metadata: dict[str, str], file: int) -> None:
    skeleton = table_skeleton(run.uri)
    name = table_names(run.uri, "images")[file]
    with (
        storage.open_write(run.path("tables", "motion", name)) as motion_file,
        storage.open_write(run.path("tables", "events", name)) as events_file,
        pq.ParquetWriter(events_file, _EVENTS, compression="zstd") as events,
        pq.ParquetWriter(motion_file, _SCHEMA.with_metadata(metadata), compression="zstd") as motion,
    ):
        for table in _images(run, file, skeleton):
            motion.write_table(table.replace_schema_metadata(metadata))
        for table, happened in _videos(run, name, skeleton):
            motion.write_table(table.replace_schema_metadata(metadata))
            events.write_table(happened)


def has_motion(run: Run) -> bool:
    """Whether the run has tables/motion."""
    return bool(table_names(run.uri, "motion"))


def _totals(run: Run) -> MotionTotals:
    errors = [f"{angle.name}_std" for angle in ANGLES if not angle.segment]
    people = known = good = 0
    for table in read_table(run.uri, "motion", [*errors, "interpolated"]):
        people += table.num_rows
        of_table = known_errors(table)
        known += len(of_table)
        good += int((of_table < GOOD_ERROR).sum())
    events = sum(table.num_rows for table in read_table(run.uri, "events", ["event"]))
    return MotionTotals(people, events, known, good)


def known_errors(motion: pa.Table) -> np.ndarray:
    """The standard errors of all joint angles in rows of tables/motion, degrees, without people who were filled in."""
    measured = motion.filter(pc.invert(motion["interpolated"]))
    names = [f"{angle.name}_std" for angle in ANGLES if not angle.segment]
    return np.concatenate([measured[name].drop_null().to_numpy() for name in names])


def _images(run: Run, file: int, skeleton: Skeleton) -> Iterator[pa.Table]:
    """The people of images that are no frames, by their joints as the network gave them."""
    in_file = takewhile(lambda pair: pair[0]["file"] == file, images_with_people(run, start=file))
    single = ((row, people) for row, people in in_file if row["video"] is None and len(people))
    while batch := list(islice(single, _IMAGES_AT_A_TIME)):
        people = People.concatenate([found for _, found in batch])
        joints = np.where((people.keypoint_scores >= _LEAST_SCORE)[..., None], people.keypoints, np.nan)
        numbers = np.concatenate([np.arange(len(found)) for _, found in batch])
        keys = {
            "image_id": [row["image_id"] for row, found in batch for _ in range(len(found))],
            "person": numbers.astype(np.int32),
            "interpolated": np.zeros(len(people), bool),
            "weak": np.zeros(len(people), bool),
        }
        yield _measure(keys, None, joints.astype(float), np.full(joints.shape[:2], np.nan), skeleton).table


def _videos(run: Run, name: str, skeleton: Skeleton) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of tables/motion and tables/events of each video in a file of tables/tracks."""
    for _, video in tracks_by_video(run, name):
        tracked = pc.is_valid(video["track_id"])
        motion, happened = [video.filter(pc.invert(tracked)).select(KEYS.names)], []
        video = video.filter(tracked)
        ids = video["track_id"].to_numpy()
        for track in np.unique(ids):
            table, events = _track(video.filter(pa.array(ids == track)), skeleton)
            motion.append(table)
            happened.append(events)
        order = [("frame", "ascending"), ("person", "ascending"), ("track_id", "ascending")]  # null comes last
        rows = pa.concat_tables(motion, promote_options="default").sort_by(order)
        in_time = pa.concat_tables([_EVENTS.empty_table(), *happened]).sort_by(
            [("seconds", "ascending"), ("track_id", "ascending")]
        )
        yield pa.concat_tables([_SCHEMA.empty_table(), rows], promote_options="default"), in_time


def _track(track: pa.Table, skeleton: Skeleton) -> tuple[pa.Table, pa.Table]:
    """Rows of tables/motion and tables/events of one track."""
    seconds, frames = track["seconds"].to_numpy(), track["frame"].to_numpy()
    joints = list_values(track["keypoints_smooth"]).astype(float)
    std = list_values(track["keypoint_std"]).astype(float)
    measured = _measure({name: track[name] for name in KEYS.names}, seconds, joints, std, skeleton)
    angles = measured.angles
    knees = np.mean([np.abs(angles[f"{side}_knee_flexion"]) for side in ("left", "right")], axis=0)
    elbows = np.column_stack([angles[f"{side}_elbow_flexion"] for side in ("left", "right")])
    movement = Movement(seconds, joints, measured.mass_centres, knees, elbows)
    events = [*gait_events(seconds, joints, measured.facing, skeleton), *jump_events(movement, skeleton)]
    rows = [
        {
            "video": track["video"][0].as_py(),
            "track_id": track["track_id"][0].as_py(),
            "event": event.kind,
            "side": event.side,
            "seconds": event.seconds,
            "frame": int(frames[np.abs(seconds - event.seconds).argmin()]),
            **event.measured,
        }
        for event in events
    ]
    return measured.table, pa.Table.from_pylist(rows, _EVENTS)


class _Measured(NamedTuple):
    """Rows of tables/motion, and what events are found from."""

    table: pa.Table
    facing: np.ndarray
    mass_centres: np.ndarray
    angles: dict[str, np.ndarray]


def _measure(
    keys: Mapping[str, object], seconds: np.ndarray | None, joints: np.ndarray, std: np.ndarray, skeleton: Skeleton
) -> _Measured:
    """Everything about a person over time; or, without times, about different people."""
    views = find_views(seconds, joints, skeleton)
    mass = centre_of_mass(joints, std, skeleton)
    columns: dict[str, object] = {
        **keys,
        "view": views.views,
        "facing": pa.array(views.facing, pa.float32(), from_pandas=True).cast(pa.int8()),
        "com": [None if np.isnan(x) else [x, y] for x, y in mass.positions.tolist()],
        "com_std": mass.std,
        "com_mass": mass.mass,
    }
    angles: dict[str, np.ndarray] = {}
    for angle in ANGLES:
        angles[angle.name], columns[f"{angle.name}_std"] = measure(
            angle, joints, std, views.facing, skeleton, over_time=seconds is not None
        )
    columns |= angles
    return _Measured(
        pa.Table.from_arrays([_column(columns, field, len(joints)) for field in _SCHEMA], schema=_SCHEMA),
        views.facing,
        mass.positions,
        angles,
    )


def _column(columns: Mapping[str, object], field: pa.Field, rows: int) -> pa.Array | pa.ChunkedArray:
    values = columns.get(field.name)
    if values is None:
        return pa.nulls(rows, field.type)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    return pa.array(values, field.type, from_pandas=True)  # nan becomes null
