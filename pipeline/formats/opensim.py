"""OpenSim's marker trajectories (.trc) and motions (.mot), as users of Sports2D have them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import UserError
from pipeline.formats.common import export_path
from pipeline.motion.angles import ANGLES
from pipeline.motion.tables import has_motion
from pipeline.run import Run
from pipeline.run.columns import list_values
from pipeline.run.tables import read_table, table_skeleton
from pipeline.tracking.tables import tracks_by_video
from pipeline.tracking.videos import tracked_videos


def write_opensim(run: Run) -> str:
    """A zip archive with two files for each track: the smoothed joints as markers, and the joint angles in degrees.

    Markers have x to the right, y up from the lower edge of the image, and z 0; OpenSim knows no pixels, so that a
    millimetre stands for a pixel. There is a row for each frame in which the track is known, and unknown places are
    empty. Angles cannot be empty: OpenSim ends a motion at the first that is no number. So angles and frames are left
    out: of the sets of angles that are known in some frame, the one that gives the most values is kept.

    Raises:
        UserError: the run has no videos, or no tables/motion.
    """
    if not has_motion(run):
        raise UserError(f"{run.uri} has no joint angles; write them with jobs/reduce.py {run.uri} --motion")
    skeleton = table_skeleton(run.uri)
    heights: dict[str, int] = {}
    for video in tracked_videos(run):
        heights[video.name] = next((frame.image["height"] for frame in video.frames if frame.ok), 0)
    uri = export_path(run, "opensim.zip")
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, tracks in tracks_by_video(run):
            for track, rows in _by_track(tracks):
                path = f"{storage.unique_name(name)}-track{track}"
                markers = list_values(rows["keypoints_smooth"]).astype(float) * [1, -1] + [0, heights[name]]
                seconds = rows["seconds"].to_numpy()
                archive.writestr(f"{path}.trc", _trc(f"{path}.trc", seconds, markers, skeleton.joints))
        for name, motion in _motion_by_video(run):
            for track, rows in _by_track(motion):
                path = f"{storage.unique_name(name)}-track{track}"
                archive.writestr(f"{path}.mot", _mot(path, rows))
    return uri


def _by_track(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    tracked = table.filter(pc.is_valid(table["track_id"]))
    ids = tracked["track_id"].to_numpy()
    for track in np.unique(ids).tolist():
        yield track, tracked.filter(pa.array(ids == track))


def _motion_by_video(run: Run) -> Iterator[tuple[str, pa.Table]]:
    pieces: dict[str, list[pa.Table]] = {}
    for table in read_table(run.uri, "motion"):
        for name in table["video"].unique().to_pylist():
            if name is not None:
                pieces.setdefault(name, []).append(table.filter(pc.equal(table["video"], name)))
    for name, tables in pieces.items():
        yield name, pa.concat_tables(tables)


def _trc(path: str, seconds: np.ndarray, markers: np.ndarray, names: tuple[str, ...]) -> str:
    """A file of markers (T, K, 2)."""
    rate = (len(seconds) - 1) / (seconds[-1] - seconds[0]) if len(seconds) > 1 else 1.0
    rows = len(seconds)
    lines = [
        f"PathFileType\t4\t(X/Y/Z)\t{path}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate:.6g}\t{rate:.6g}\t{rows}\t{len(names)}\tmm\t{rate:.6g}\t1\t{rows}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"X{i}\tY{i}\tZ{i}" for i in range(1, len(names) + 1)),
    ]
    for number, (time, points) in enumerate(zip(seconds, markers, strict=True), 1):
        values = ["\t\t" if np.isnan(x) else f"{x:.3f}\t{y:.3f}\t0" for x, y in points]
        lines.append(f"{number}\t{time:.6f}\t" + "\t".join(values))
    return "\n".join(lines) + "\n"


def _mot(name: str, rows: pa.Table) -> str:
    """A file of angles."""
    angles = np.column_stack([rows[a.name].to_numpy(zero_copy_only=False).astype(float) for a in ANGLES])
    in_rows, in_columns = _largest_known(angles)
    names = [ANGLES[column].name for column in in_columns]
    values = np.column_stack([rows["seconds"].to_numpy()[in_rows], angles[np.ix_(in_rows, in_columns)]])
    lines = [name, "version=1", f"nRows={len(values)}", f"nColumns={values.shape[1]}", "inDegrees=yes", "endheader"]
    lines.append("\t".join(["time", *names]))
    lines += ["\t".join(f"{value:.6g}" for value in row) for row in values]
    return "\n".join(lines) + "\n"


def _largest_known(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, ascending, without a nan where they cross: the columns that some row has, and all rows that
    have them; the most values."""
    known = ~np.isnan(values)
    sets = np.unique(known, axis=0)
    best = sets[np.argmax([known[:, columns].all(axis=1).sum() * columns.sum() for columns in sets])]
    return np.flatnonzero(known[:, best].all(axis=1)), np.flatnonzero(best)
