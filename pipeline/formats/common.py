"""Helpers of the formats: visibility, rounding, JSON lists, names in archives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from pipeline import storage
from pipeline.boxes import xyxy_to_xywh
from pipeline.people import People
from pipeline.run import Run

VISIBLE_SCORE = 0.2  # joints with a lower score are not visible, in formats that have visibility
_LABELLED_AND_VISIBLE = 2  # COCO's v


def is_visible(people: People, i: int, width: int, height: int) -> np.ndarray:
    """(K,) bool: whether each joint of person i has a sufficient score and lies in the image of this size in pixels."""
    inside = ((people.keypoints[i] >= 0) & (people.keypoints[i] <= [width, height])).all(axis=1)
    return inside & (people.keypoint_scores[i] >= VISIBLE_SCORE)


def visible_joints(people: People, i: int, width: int, height: int) -> np.ndarray:
    """(K, 3) x y v of person i, as COCO annotations have it: v is 2 for a visible joint, all three are 0 for others."""
    visible = is_visible(people, i, width, height)
    joints = np.column_stack([people.keypoints[i], np.full(len(visible), _LABELLED_AND_VISIBLE)]).astype(float)
    joints[~visible] = 0
    return joints


def box_inside(people: People, i: int, width: int, height: int) -> np.ndarray:
    """(4,) x1 y1 x2 y2 of person i, clipped to the image."""
    return np.clip(people.boxes[i], 0, [width, height, width, height])


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


class MemberNames:
    """Names of the files of images inside an archive: the image's id without its suffix, unique."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def stem(self, image_id: str) -> str:
        """The name without suffix; of images that differ by their suffix alone, only the first loses it.

        Parts that lead out of the archive are left out.
        """
        suffix = storage.suffix(image_id)
        parts = image_id.removesuffix(suffix).split("/")
        stem = "/".join(part for part in parts if part not in ("", ".", ".."))
        if stem in self._taken:
            stem += suffix.replace(".", "_")
        while stem in self._taken:
            stem += "_"
        self._taken.add(stem)
        return stem
