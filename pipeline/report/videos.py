"""Videos with people drawn into them: boxes and trails in the colour of the track, and smoothed skeletons."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, groupby
from types import ModuleType
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.people import People
from pipeline.report.draw import Colour, draw_people, to_point, track_colour
from pipeline.run import Run
from pipeline.run.images import pixels_of
from pipeline.run.tables import read_table, table_skeleton
from pipeline.skeletons import Skeleton
from pipeline.sources.video.ffmpeg import load_av
from pipeline.tracking.tables import tracks_by_video

# H.264 plays everywhere; MPEG-4 part 2 is in every build of FFmpeg.
_ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "23", "preset": "veryfast"},
    "libopenh264": {"b": "4M"},
    "mpeg4": {"b": "8M"},
}
_TIME_BASE = Fraction(1, 60_000)  # the usual frame rates are whole numbers of these; MPEG-4 part 2 takes no finer one
_STEP_BACK = round(1 / 25 / _TIME_BASE)  # between frames where the time goes back
_TRAIL = 1.0  # seconds
_WHITE = (255, 255, 255)


class _Video(NamedTuple):
    """A video of a run.

    Attributes:
        shards: of its frames with the status ok, by image id, in order.
        seconds: of these frames.
    """

    name: str
    shards: dict[str, str]
    seconds: dict[str, float]


def draw_videos(run: Run, count: int) -> list[str]:
    """Draw the first videos of a run with tracks into its `videos/`; returns their URIs.

    Frames keep their times. Frames that are not ok are left out, so that the one before them stays for longer.
    """
    skeleton = table_skeleton(run.uri)
    drawn: list[str] = []
    tracks = tracks_by_video(run)
    tracked: tuple[str, pa.Table] | None = next(tracks, None)
    for video in _videos(run):
        if len(drawn) == count:
            break
        people: dict[str, list[dict[str, Any]]] = {}
        if tracked is not None and tracked[0] == video.name:
            people = _by_image(tracked[1]) if video.shards else {}
            tracked = next(tracks, None)
        if not video.shards:
            continue
        with tempfile.TemporaryFile(suffix=".mp4") as file:
            if _encode(_pictures(run, video, people, skeleton), file):
                file.seek(0)
                drawn.append(drawn_uri(run, video.name))
                with storage.open_write(drawn[-1]) as stream:
                    shutil.copyfileobj(file, stream)
    return drawn


def drawn_uri(run: Run, video: str) -> str:
    """Where the drawn copy of a video is."""
    return run.path("videos", f"{storage.unique_name(video)}.mp4")


def _videos(run: Run) -> Iterator[_Video]:
    """The videos of a run, and its sequences of images, which have no shards here: they are not drawn."""
    columns = ["image_id", "shard", "status", "video", "pts", "seconds"]
    rows = (row for table in read_table(run.uri, "images", columns) for row in table.to_pylist() if row["video"])
    for name, frames in groupby(rows, key=lambda row: row["video"]):
        ok = [row for row in frames if row["status"] == "ok" and row["pts"] is not None and row["seconds"] is not None]
        yield _Video(
            name, {row["image_id"]: row["shard"] for row in ok}, {row["image_id"]: row["seconds"] for row in ok}
        )


def _by_image(tracks: pa.Table) -> dict[str, list[dict[str, Any]]]:
    columns = ["image_id", "track_id", "interpolated", "box", "keypoints_smooth"]
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in tracks.select(columns).to_pylist():
        by_image[row["image_id"]].append(row)
    return by_image


def _pictures(
    run: Run, video: _Video, people: dict[str, list[dict[str, Any]]], skeleton: Skeleton
) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds and pixels of each frame that can still be read, with its people."""
    trails: dict[int, deque[tuple[float, np.ndarray]]] = defaultdict(deque)
    for image_id, pixels in pixels_of(run, video.shards):
        seconds, rows = video.seconds[image_id], people.get(image_id, [])
        for row in rows:
            if row["track_id"] is not None:
                box = np.array(row["box"])
                trails[row["track_id"]].append((seconds, np.array([(box[0] + box[2]) / 2, box[3]])))
        picture = pixels.copy()
        for track in list(trails):
            trail = trails[track]
            while trail and trail[0][0] < seconds - _TRAIL:
                trail.popleft()
            if not trail:
                del trails[track]
            points = np.array([to_point(point) for _, point in trail], np.int32)
            cv2.polylines(picture, [points.reshape(-1, 1, 2)], False, track_colour(track), 2, cv2.LINE_AA)
        yield seconds, _draw_rows(picture, rows, skeleton)


def _draw_rows(picture: np.ndarray, rows: list[dict[str, Any]], skeleton: Skeleton) -> np.ndarray:
    count = len(rows)
    unknown = np.full((len(skeleton), 2), np.nan)
    joints = np.array([unknown if row["keypoints_smooth"] is None else row["keypoints_smooth"] for row in rows])
    joints = joints.reshape(count, len(skeleton), 2)
    known = ~np.isnan(joints[..., 0])
    boxes = np.array([row["box"] for row in rows]).reshape(count, 4)
    people = People(boxes, np.ones(count), np.nan_to_num(joints), known.astype(float), np.ones(count))
    colours = [_WHITE if row["track_id"] is None else track_colour(row["track_id"]) for row in rows]
    drawn = draw_people(picture, people, skeleton, colours)
    for row, colour in zip(rows, colours, strict=True):
        if row["track_id"] is not None:
            _label(drawn, f"{row['track_id']}{' filled in' if row['interpolated'] else ''}", row["box"], colour)
    return drawn


def _label(picture: np.ndarray, text: str, box: list[float], colour: Colour) -> None:
    """Text on a patch of the colour, at the upper left corner of a box, inside the picture."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, picture.shape[0] / 1400)
    (width, height), below = cv2.getTextSize(text, font, size, 1)
    x, y = to_point((box[0], box[1]))
    x, y = int(np.clip(x, 0, max(0, picture.shape[1] - width))), max(y, height + below)
    cv2.rectangle(picture, (x, y - height - below), (x + width, y), colour, cv2.FILLED)
    cv2.putText(picture, text, (x, y - below // 2), font, size, (0, 0, 0), 1, cv2.LINE_AA)


def _encode(pictures: Iterator[tuple[float, np.ndarray]], file: IO[bytes]) -> int:
    """Write an MP4 file; returns the number of frames. Nothing is written without any."""
    av = load_av()
    first = next(pictures, None)
    if first is None:
        return 0
    name, options = next((name, options) for name, options in _ENCODERS.items() if name in av.codecs_available)
    height, width = (side + side % 2 for side in first[1].shape[:2])  # chroma is subsampled by two
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(name, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        count, latest, offset = 0, -1, 0
        for seconds, picture in chain([first], pictures):
            stamp = round(seconds / _TIME_BASE) + offset
            if stamp <= latest:  # the time goes back, as in videos that were joined: it goes on from here
                offset += latest + _STEP_BACK - stamp
                stamp = latest + _STEP_BACK
            container.mux(stream.encode(_frame(av, picture, width, height, stamp)))
            count, latest = count + 1, stamp
        container.mux(stream.encode())
    return count


def _frame(av: ModuleType, picture: np.ndarray, width: int, height: int, stamp: int) -> Any:
    """A frame of the size of the video; frames of another size, after a change in the stream, are scaled."""
    if picture.shape[0] + picture.shape[0] % 2 != height or picture.shape[1] + picture.shape[1] % 2 != width:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    down, right = height - picture.shape[0], width - picture.shape[1]
    picture = cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REPLICATE)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts, frame.time_base = stamp, _TIME_BASE
    return frame
