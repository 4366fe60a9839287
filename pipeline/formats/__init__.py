"""Formats of other tools: one file each. `FORMATS` names them.

Every function writes one file (FiftyOne: a folder) of a reduced run and returns its URI; it streams, one table at a
time in memory; of videos one video.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import UserError
from pipeline.formats.alphapose import write_alphapose
from pipeline.formats.coco import write_coco
from pipeline.formats.cvat import write_cvat
from pipeline.formats.cvat_video import write_cvat_video
from pipeline.formats.fiftyone import write_fiftyone
from pipeline.formats.label_studio import write_label_studio
from pipeline.formats.label_studio_video import write_label_studio_video
from pipeline.formats.mot import write_mot
from pipeline.formats.openpose import write_cmu, write_openpose
from pipeline.formats.opensim import write_opensim
from pipeline.formats.posetrack import write_posetrack
from pipeline.formats.yolo import write_yolo
from pipeline.run import Run

__all__ = ["FORMATS", "export", "write_coco"]

FORMATS: dict[str, Callable[[Run], str]] = {
    "coco": write_coco,
    "alphapose": write_alphapose,
    "openpose": write_openpose,
    "cmu": write_cmu,
    "yolo": write_yolo,
    "label_studio": write_label_studio,
    "cvat": write_cvat,
    "fiftyone": write_fiftyone,
    "mot": write_mot,
    "posetrack": write_posetrack,
    "cvat_video": write_cvat_video,
    "label_studio_video": write_label_studio_video,
    "opensim": write_opensim,
}


def export(run: Run, name: str) -> str:
    """Write a reduced run in another format; returns the file's URI.

    Raises:
        UserError: the name is unknown, or the format cannot hold this skeleton.
    """
    if name not in FORMATS:
        raise UserError(f"--export is {name!r}; known formats: {', '.join(FORMATS)}")
    return FORMATS[name](run)
