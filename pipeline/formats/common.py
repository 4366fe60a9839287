"""Helpers of the formats: the tables of a run image by image, rounding, JSON lists, names inside archives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipeline import storage
from pipeline.boxes import xyxy_to_xywh
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.columns import people_from_arrow
from pipeline.run.tables import read_table

VISIBLE_SCORE = 0.2  # joints with a lower score are written as not visible, in formats that have visibility
_LABELLED_AND_VISIBLE = 2  # COCO's v
_COLUMNS = ["image_id", "coco_id", "status", "width", "height", "num_people"]


def images_with_people(run: Run) -> Iterator[tuple[dict[str, Any], People]]:
    """Each image with status `ok`, in the order of the tables, with its people.

    tables/people has the order of tables/images, so both are read side by side.
    """
    tables = (people_from_arrow(table) for table in read_table(run.uri, "people"))
    current, position = People.empty(0), 0
    for table in read_table(run.uri, "images", _COLUMNS):
        for row in table.to_pylist():
            parts = []
            missing = row["num_people"]
            while missing:
                if position == len(current):
                    current, position = next(tables), 0
                taken = min(missing, len(current) - position)
                parts.append(current[position : position + taken])
                position += taken
                missing -= taken
            if row["status"] == "ok":
                yield row, People.concatenate(parts) if parts else current[:0]


def visible_joints(people: People, i: int) -> np.ndarray:
    """(K, 3) x y v of person i, as COCO annotations have it: v is 2 for a visible joint, all three are 0 for others."""
    visible = people.keypoint_scores[i] >= VISIBLE_SCORE
    joints = np.column_stack([people.keypoints[i], np.full(len(visible), _LABELLED_AND_VISIBLE)]).astype(float)
    joints[~visible] = 0
    return joints


def xywh(box_xyxy: np.ndarray) -> list[float]:
    """x y width height, rounded."""
    return rounded(xyxy_to_xywh(box_xyxy.astype(float)))


def rounded(values: Iterable[float], digits: int = 3) -> list[float]:
    return [round(float(value), digits) for value in values]


def extra_values(people: People, i: int) -> dict[str, Any]:
    """The extra columns of person i as plain values, for formats whose entries may have further keys."""
    return {name: array[i].tolist() for name, array in people.extra.items()}


def write_json_list(stream: BinaryIO, entries: Iterable[Any]) -> None:
    """A JSON list with one entry per line."""
    stream.write(b"[")
    for number, entry in enumerate(entries):
        stream.write((b",\n" if number else b"\n") + json.dumps(entry).encode())
    stream.write(b"\n]")


def export_path(run: Run, name: str) -> str:
    return run.path("exports", name)


def member_name(image_id: str, suffix: str) -> str:
    """The name of an image's file inside an archive: its id without extension, and without a way out of the archive."""
    stem = image_id.removesuffix(storage.suffix(image_id))
    return "/".join(part for part in stem.split("/") if part not in ("", ".", "..")) + suffix
