"""What a page says about videos: people and tracks over time, joint angles, and events of movements."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.motion.tables import GOOD_ERROR, has_motion, known_errors
from pipeline.report import charts
from pipeline.report.charts import Band, Drawn, Span
from pipeline.report.draw import track_colour
from pipeline.report.verdict import Tile
from pipeline.report.videos import drawn_uri
from pipeline.run import Run
from pipeline.run.tables import read_table
from pipeline.tracking.tables import tracks_by_video

_VIDEOS = 12  # on a page
_TRACKS = 40  # rows of a timeline
_CURVES = 2  # tracks with curves
_GAP = 1.5  # usual steps between frames: a longer one is a gap of a track
_EVENT_PICTURES = 12
# The angles of each chart, and the share of the frames in which they must be known.
_CURVED = (
    ("left_knee_flexion", "right_knee_flexion"),
    ("left_hip_flexion", "right_hip_flexion"),
    ("left_elbow_flexion", "right_elbow_flexion"),
)
_LEAST_KNOWN = 0.2


class VideoSection(NamedTuple):
    """A video on a page.

    Attributes:
        player: path of the drawn video, relative to the page; None if it was not drawn.
        events: a table; None without events.
    """

    name: str
    tiles: list[Tile]
    player: str | None
    charts: list[Drawn]
    events: dict[str, Any] | None


class Videos(NamedTuple):
    """The videos of a page.

    Attributes:
        total: number of videos.
        accuracy: a sentence about the errors of angles; None without angles.
        event_images: image ids of events, with captions.
    """

    sections: list[VideoSection]
    total: int
    accuracy: str | None
    event_images: dict[str, str]


class _Frames(NamedTuple):
    """The frames of a video: seconds, nan where unknown, whether they are ok, and their people."""

    seconds: list[float]
    ok: list[bool]
    people: list[int]


def read_videos(run: Run) -> Videos:
    """The videos of a run; the first of them in detail."""
    frames, total = _read_frames(run)
    if not frames:
        return Videos([], 0, None, {})
    tracks = {name: table for name, table in tracks_by_video(run) if name in frames}
    motion, accuracy = _read_motion(run, set(frames)) if has_motion(run) else ({}, None)
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if motion:
        for table in read_table(run.uri, "events"):
            for row in table.to_pylist():
                if row["video"] in frames:
                    events[row["video"]].append(row)
    sections = [
        _section(run, name, tracks.get(name), of_video, motion.get(name), events[name])
        for name, of_video in frames.items()
    ]
    return Videos(sections, total, accuracy, _event_images(tracks, events))


def _read_frames(run: Run) -> tuple[dict[str, _Frames], int]:
    """The frames of the first videos, and the number of all videos."""
    frames: dict[str, _Frames] = {}
    found: set[str] = set()
    for table in read_table(run.uri, "images", ["video", "seconds", "status", "num_people"]):
        for name in table["video"].unique().to_pylist():
            if name is not None:
                found.add(name)
                if len(frames) < _VIDEOS:
                    frames.setdefault(name, _Frames([], [], []))
        for row in table.filter(pc.is_in(table["video"], pa.array(list(frames), pa.string()))).to_pylist():
            of_video = frames[row["video"]]
            of_video.seconds.append(np.nan if row["seconds"] is None else row["seconds"])
            of_video.ok.append(row["status"] == "ok")
            of_video.people.append(row["num_people"])
    return frames, len(found)


def _read_motion(run: Run, names: set[str]) -> tuple[dict[str, pa.Table], str | None]:
    """tables/motion of these videos, and a sentence about the errors of all angles."""
    pieces: dict[str, list[pa.Table]] = defaultdict(list)
    known = good = 0
    for table in read_table(run.uri, "motion"):
        errors = known_errors(table)
        known += len(errors)
        good += int((errors < GOOD_ERROR).sum())
        for name in table["video"].unique().to_pylist():
            if name in names:
                pieces[name].append(table.filter(pc.equal(table["video"], name)))
    sentence = None
    if known:
        sentence = (
            f"{good / known:.0%} of the joint angles have a standard error below {GOOD_ERROR:.0f} degrees. This is "
            "the scatter of the joints between frames alone: mistakes that a network makes in every frame, the "
            "direction of the camera and its perspective come on top. The angles are projections onto the image, and "
            "no measurements for clinical use."
        )
    return {name: pa.concat_tables(tables) for name, tables in pieces.items()}, sentence


def _section(
    run: Run, name: str, tracks: pa.Table | None, frames: _Frames, motion: pa.Table | None, events: list[dict[str, Any]]
) -> VideoSection:
    seconds, failed = np.array(frames.seconds), ~np.array(frames.ok)
    known = seconds[~np.isnan(seconds)]
    ids = [] if tracks is None else pc.unique(tracks["track_id"].drop_null()).to_pylist()
    tiles = [
        Tile(f"{known.max() - known.min():.1f} s" if len(known) else "-", "from the first frame to the last"),
        Tile(f"{len(seconds):,}", "frames"),
        Tile(f"{int(failed.sum()):,}", "frames failed", bool(failed.any())),
        Tile(f"{len(ids):,}", "tracks"),
        Tile(f"{max(frames.people, default=0):,}", "people in a frame, at most"),
    ]
    order = np.argsort(seconds, kind="stable")
    people = charts.lines({"people": (seconds[order], np.array(frames.people)[order])}, "seconds", "people", wide=True)
    drawn = [
        Drawn(people, "People over time", wide=True),
        *([] if tracks is None else _timeline(tracks, _runs(seconds, failed))),
    ]
    if motion is not None:
        drawn += _curves(motion, events)
    table = None
    if events:
        columns = ["seconds", "track_id", "event", "side", *(c for c in events[0] if c.endswith(_UNITS))]
        filled = [c for c in columns if any(event[c] is not None for event in events)]
        rows = [[_shown(event[c]) for c in filled] for event in events]
        header = [c.replace("_", " ").replace(" id", "") for c in filled]
        table = {"columns": header, "rows": rows, "marked": [False] * len(rows)}
    uri = drawn_uri(run, name)
    player = f"videos/{storage.basename(uri)}" if storage.exists(uri) else None
    return VideoSection(name, tiles, player, drawn, table)


_UNITS = ("_seconds", "_minute", "_share", "_metres", "_metre", "_pixels", "_flexion")


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("_", " ")
    return round(value, 3) if isinstance(value, float) else value


def _runs(seconds: np.ndarray, marked: np.ndarray) -> list[tuple[float, float]]:
    """First and last time of each run of marked frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int))).reshape(-1, 2)
    times = [seconds[start:end][~np.isnan(seconds[start:end])] for start, end in edges]
    return [(float(run.min()), float(run.max())) for run in times if len(run)]


def _timeline(tracks: pa.Table, failed: list[tuple[float, float]]) -> list[Drawn]:
    """Tracks as bars, the longest if there are many, with faint pieces where they were filled in."""
    tracked = tracks.filter(pc.is_valid(tracks["track_id"]))
    ids, seconds = tracked["track_id"].to_numpy(), tracked["seconds"].to_numpy()
    filled = tracked["interpolated"].to_numpy(zero_copy_only=False)
    if not len(ids):
        return []
    step = float(np.median(np.diff(np.unique(seconds)))) if len(np.unique(seconds)) > 1 else 1.0
    tracks_by_length = sorted(np.unique(ids).tolist(), key=lambda track: -np.count_nonzero(ids == track))
    rows: dict[str, list[Span]] = {}
    for track in sorted(tracks_by_length[:_TRACKS]):
        times, faint = seconds[ids == track], filled[ids == track]
        cuts = np.flatnonzero((np.diff(times) > _GAP * step) | (faint[1:] != faint[:-1])) + 1
        colour = "#{:02x}{:02x}{:02x}".format(*track_colour(track))
        rows[str(track)] = [
            Span(float(times[piece[0]]), float(times[piece[-1]]) + step, colour, bool(faint[piece[0]]))
            for piece in np.split(np.arange(len(times)), cuts)
        ]
    more = f"; the {_TRACKS} longest of {len(tracks_by_length)}" if len(tracks_by_length) > _TRACKS else ""
    caption = f"Tracks over time{more}. Gaps: the person was not seen. Faint: filled in between frames."
    return [Drawn(charts.timeline(rows, failed, "seconds", "failed frames"), caption, wide=True)]


def _curves(motion: pa.Table, events: list[dict[str, Any]]) -> list[Drawn]:
    """Joint angles of the tracks that are seen most, with their errors and events."""
    tracked = motion.filter(pc.is_valid(motion["track_id"]))
    ids = tracked["track_id"].to_numpy()
    drawn = []
    for track in sorted(np.unique(ids).tolist(), key=lambda track: -np.count_nonzero(ids == track))[:_CURVES]:
        rows = tracked.filter(pa.array(ids == track))
        seconds = rows["seconds"].to_numpy()
        marks: dict[str, list[float]] = defaultdict(list)
        for event in events:
            if event["track_id"] == track and event["event"] in ("heel_strike", "take_off", "release"):
                marks[event["event"].replace("_", " ")].append(event["seconds"])
        for group in _CURVED:
            series = {
                name.replace("_", " "): Band(seconds, *(_numbers(rows, f"{name}{end}") for end in ("", "_std")))
                for name in group
                if len(rows) - rows[name].null_count > _LEAST_KNOWN * len(rows)
            }
            if series:
                svg = charts.bands(series, marks, "seconds", "degrees")
                caption = f"Track {track}: joint angles with a band of one standard error; empty where they are unknown"
                drawn.append(Drawn(svg, caption, wide=True))
    return drawn


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    return np.array(rows[name].to_numpy(zero_copy_only=False), float)


def _event_images(tracks: dict[str, pa.Table], events: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The frames of some events, evenly over all of them, with captions."""
    listed = [event for name in tracks for event in events[name]]
    if not listed:
        return {}
    picked = np.unique(np.linspace(0, len(listed) - 1, min(len(listed), _EVENT_PICTURES)).astype(int))
    images = {}
    for name, table in tracks.items():
        ids = dict(zip(table["frame"].to_pylist(), table["image_id"].to_pylist(), strict=True))
        for event in (listed[i] for i in picked):
            if event["video"] == name and event["frame"] in ids:
                side = f"{event['side']} " if event["side"] else ""
                what = f"{side}{event['event'].replace('_', ' ')} of track {event['track_id']}"
                images[ids[event["frame"]]] = f"{what} at {event['seconds']:.2f} s"
    return images
