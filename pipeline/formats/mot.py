"""The text files of MOTChallenge."""

from __future__ import annotations

import zipfile

from pipeline import storage
from pipeline.formats.common import export_path, rounded, xywh
from pipeline.run import Run
from pipeline.tracking.videos import tracked_videos


def write_mot(run: Run) -> str:
    """A zip archive with a file for each video: a line `frame,track,x,y,width,height,score,-1,-1,-1` for each person.

    Frames and pixels count from 1, as MOTChallenge has them. People without a track, and those that were filled in
    between frames, are left out.
    """
    uri = export_path(run, "mot.zip")
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for video in tracked_videos(run):
            lines = [
                [
                    frame.position + 1,
                    person.track,
                    *xywh(person.box + 1),
                    *rounded([frame.people.box_scores[person.person]]),
                ]
                for frame in video.frames
                for person in frame.tracked
                if person.person is not None
            ]
            text = "".join(",".join(map(str, [*line, -1, -1, -1])) + "\n" for line in lines)
            archive.writestr(f"{storage.unique_name(video.name)}.txt", text)
    return uri
