"""Tracks and motion of a reduced run: in this process, or in Ray tasks if its tables have several files."""

from __future__ import annotations

import contextlib

from pipeline.fleet.cluster import connect
from pipeline.fleet.tasks import map_on_ray
from pipeline.motion.tables import MotionTotals, has_motion, write_motion
from pipeline.run import Run
from pipeline.run.tables import table_names
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import TrackTotals, find_videos, write_tracks


def write_tracks_and_motion(
    run: Run, settings: TrackingSettings, motion: bool | None, reuse: bool
) -> tuple[TrackTotals | None, MotionTotals | None]:
    """Write tables/tracks of a run with videos, and if wanted, or if they exist, tables/motion and tables/events.

    Args:
        motion: whether these are wanted; None if the run has videos.
        reuse: keep tables that were made with these settings; only if the other tables have not changed since.

    Raises:
        UserError: the frames of a video are not together in the tables.
    """
    videos = bool(find_videos(run))
    motion = has_motion(run) or (videos if motion is None else motion)
    on_ray = (videos or motion) and len(table_names(run.uri, "images")) > 1
    with connect(run.settings.fleet) if on_ray else contextlib.nullcontext():
        map_files = map_on_ray if on_ray else map
        tracks = write_tracks(run, settings, reuse, map_files) if videos else None
        return tracks, write_motion(run, settings, reuse, map_files) if motion else None
