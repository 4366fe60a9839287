"""The tables of a run, image by image, and what all formats share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipeline import storage
from pipeline.people import People
from pipeline.run import Run
from pipeline.tables import read_table, to_people

CLEAR = 0.2  # joints scored less are told as not seen, where a format has a word for that

_COLUMNS = ["image_id", "coco_id", "status", "width", "height", "num_people"]


def images_with_people(run: Run) -> Iterator[tuple[dict[str, Any], People]]:
    """Each image that could be read, in the order of the tables, with its people.

    People lie in the order of their images, so that both tables are read side by side.
    """
    tables = (to_people(table) for table in read_table(run.uri, "people"))
    current, position = None, 0
    for table in read_table(run.uri, "images", _COLUMNS):
        for row in table.to_pylist():
            parts = []
            missing = row["num_people"]
            while missing:
                if current is None or position == len(current):
                    current, position = next(tables), 0
                taken = min(missing, len(current) - position)
                parts.append(current[np.arange(position, position + taken)])
                position += taken
                missing -= taken
            if row["status"] == "ok":
                yield row, _together(parts)


def _together(parts: list[People]) -> People:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return People.empty(0)
    names = ("boxes", "box_scores", "keypoints", "keypoint_scores", "pose_scores")
    return People(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def write_list(stream: BinaryIO, entries: Iterable[Any]) -> None:
    """A JSON list, an entry a line."""
    stream.write(b"[")
    for number, entry in enumerate(entries):
        stream.write((b",\n" if number else b"\n") + json.dumps(entry).encode())
    stream.write(b"\n]")


def export_path(run: Run, name: str) -> str:
    return run.path("exports", name)


def member_name(image_id: str, suffix: str) -> str:
    """The name of an image's own file in an archive: its id without its extension, and no way out of the archive."""
    stem = image_id.removesuffix(storage.suffix(image_id))
    return "/".join(part for part in stem.split("/") if part not in ("", ".", "..")) + suffix


def xywh(box: np.ndarray) -> list[float]:
    """x1 y1 x2 y2 as x y width height."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return rounded([x1, y1, x2 - x1, y2 - y1])


def rounded(values: Iterable[float], digits: int = 3) -> list[float]:
    return [round(float(value), digits) for value in values]
