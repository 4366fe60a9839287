"""The people of a run in the formats of other tools.

`EXPORTS` names them; each writes one file below `OUTPUT/exports/` and streams, one table at a time in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.evaluation.results import write_coco_results
from pipeline.exports.annotations import write_cvat, write_label_studio, write_yolo
from pipeline.exports.keypoints import write_alphapose, write_cmu, write_openpose
from pipeline.run import Run

__all__ = ["EXPORTS", "export"]

EXPORTS: dict[str, Callable[[Run], str]] = {
    "coco": write_coco_results,
    "alphapose": write_alphapose,
    "openpose": write_openpose,
    "cmu": write_cmu,
    "yolo": write_yolo,
    "label_studio": write_label_studio,
    "cvat": write_cvat,
}


def export(run: Run, name: str) -> str:
    """Write a reduced run in another format; returns the file's URI.

    Raises:
        ValueError: the name is unknown, or the format cannot hold this skeleton; the text says what it needs.
    """
    if name not in EXPORTS:
        raise ValueError(f"--export is {name!r}; known: {', '.join(EXPORTS)}")
    return EXPORTS[name](run)
