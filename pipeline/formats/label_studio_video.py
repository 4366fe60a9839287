"""Label Studio tasks with the boxes of tracks. Its videos have no joints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.coco.categories import PERSON
from pipeline.formats.common import export_path, rounded, write_json_list
from pipeline.run import Run
from pipeline.tracking.videos import Video, tracked_videos

INTERFACE = """<View>
  <Labels name="label" toName="video"><Label value="person"/></Labels>
  <Video name="video" value="$video"/>
  <VideoRectangle name="box" toName="video"/>
</View>
"""


def write_label_studio_video(run: Run) -> str:
    """Tasks with a `VideoRectangle` for each track; boxes are in percent of the frame, and frames count from 1.

    A box with `enabled` false ends a piece of a track: Label Studio draws boxes in between until then. It assumes a
    constant frame rate. The labelling interface that they fit is written beside them.
    """
    storage.write_bytes(export_path(run, "label-studio-video.xml"), INTERFACE.encode())
    uri = export_path(run, "label-studio-video.json")

    def tasks() -> Iterator[dict[str, Any]]:
        for video in tracked_videos(run):
            yield {"data": {"video": video.name}, "predictions": [{"result": _regions(video)}]}

    with storage.open_write(uri) as stream:
        write_json_list(stream, tasks())
    return uri


def _regions(video: Video) -> list[dict[str, Any]]:
    sequences: dict[int, list[dict[str, Any]]] = defaultdict(list)
    latest: dict[int, int] = {}
    for place, frame in enumerate(video.frames):
        for person in frame.tracked:
            width, height = frame.image["width"], frame.image["height"]
            sequence = sequences[person.track]
            if sequence and latest[person.track] != place - 1:
                sequence[-1]["enabled"] = False
            box = np.clip(person.box, 0, [width, height, width, height]) * 100 / [width, height, width, height]
            x, y, right, bottom = rounded(box)
            sequence.append(
                {
                    "frame": frame.position + 1,
                    "time": frame.image["seconds"],
                    "enabled": True,
                    "rotation": 0,
                    "x": x,
                    "y": y,
                    "width": round(right - x, 3),
                    "height": round(bottom - y, 3),
                }
            )
            latest[person.track] = place
    for sequence in sequences.values():
        sequence[-1]["enabled"] = sequence[-1]["frame"] == video.length
    seconds = [frame.image["seconds"] for frame in video.frames if frame.image["seconds"] is not None]
    shared = {"framesCount": video.length, "duration": max(seconds, default=0)}
    return [
        {
            "id": f"track{track}",
            "type": "videorectangle",
            "from_name": "box",
            "to_name": "video",
            "value": {**shared, "sequence": sequence, "labels": [PERSON]},
            "meta": {"track": track},
        }
        for track, sequence in sorted(sequences.items())
    ]
