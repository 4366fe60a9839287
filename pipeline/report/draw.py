"""Boxes and skeletons drawn onto images."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np

from pipeline import storage
from pipeline.jpeg import encode_jpeg
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import people_of, pixels_of
from pipeline.run.tables import read_table, table_skeleton
from pipeline.skeletons import Skeleton

Colour = tuple[int, int, int]  # RGB

# RGB, the usual colours of COCO pictures: left green, right orange, the middle and the face blue.
_LEFT, _RIGHT, _MIDDLE, _BOX = (0, 230, 80), (255, 140, 0), (60, 150, 255), (255, 255, 255)
_FACE = ("nose", "eye", "ear")
_FINE = ("face_", "_hand_")  # dense joints, drawn thin
_MIN_KEYPOINT_SCORE = 0.2
_PAPER = 255
_GOLDEN = 0.618  # of the colour circle from one track to the next: neighbours differ, and none comes back soon


def draw_people(
    image: np.ndarray, people: People, skeleton: Skeleton, colours: Sequence[Colour] | None = None
) -> np.ndarray:
    """A copy of an image with each person's box, limbs and joints; joints with a score under 0.2 are left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        people: in pixels of that image.
        colours: of the boxes; white by default.
    """
    picture = np.ascontiguousarray(image).copy()
    fine = [any(part in joint for part in _FINE) for joint in skeleton.joints]
    for i in range(len(people)):
        thickness = _thickness(people.boxes[i])
        _draw_box(picture, people.boxes[i], colours[i] if colours else _BOX)
        clear = people.keypoint_scores[i] >= _MIN_KEYPOINT_SCORE
        for a, b in skeleton.limbs:
            if clear[a] and clear[b]:
                colour = _limb_colour(skeleton.joints[a], skeleton.joints[b])
                ends = (to_point(people.keypoints[i, a]), to_point(people.keypoints[i, b]))
                cv2.line(picture, *ends, colour, max(1, thickness // 3) if fine[b] else thickness, cv2.LINE_AA)
        for joint in np.flatnonzero(clear):
            colour = _limb_colour(skeleton.joints[joint], skeleton.joints[joint])
            radius = max(1, thickness // 3) if fine[joint] else thickness + 1
            cv2.circle(picture, to_point(people.keypoints[i, joint]), radius, colour, cv2.FILLED, cv2.LINE_AA)
    return picture


def draw_boxes(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A copy of an image with boxes (N, 4) x1 y1 x2 y2."""
    picture = np.ascontiguousarray(image).copy()
    for box in boxes:
        _draw_box(picture, box, _BOX)
    return picture


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 4, side: int = 320) -> np.ndarray:
    """A grid of pictures (H, W, 3) uint8 of any size, each scaled to a square of `side` pixels."""
    rows = max(1, math.ceil(len(pictures) / columns))
    sheet = np.full((rows * side, columns * side, 3), _PAPER, np.uint8)
    for position, picture in enumerate(pictures):
        scale = side / max(picture.shape[:2])
        height, width = (max(1, int(length * scale)) for length in picture.shape[:2])
        row, column = divmod(position, columns)
        top, left = row * side + (side - height) // 2, column * side + (side - width) // 2
        shrunk = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        sheet[top : top + height, left : left + width] = shrunk
    return sheet


def _draw_box(picture: np.ndarray, box: np.ndarray, colour: Colour) -> None:
    x1, y1, x2, y2 = box
    cv2.rectangle(picture, to_point((x1, y1)), to_point((x2, y2)), colour, max(1, _thickness(box) // 2), cv2.LINE_AA)


def _thickness(box: np.ndarray) -> int:
    """Line width for a person of this size, pixels."""
    return int(np.clip(max(box[2:] - box[:2]) / 120, 1, 8))


def to_point(xy: np.ndarray | tuple[float, float]) -> tuple[int, int]:
    """A place for OpenCV, which does not take numbers of any size."""
    return int(np.clip(round(float(xy[0])), -10_000, 100_000)), int(np.clip(round(float(xy[1])), -10_000, 100_000))


def _limb_colour(a: str, b: str) -> tuple[int, int, int]:
    if any(part in name for name in (a, b) for part in _FACE):
        return _MIDDLE
    if a.startswith("left") and b.startswith("left"):
        return _LEFT
    return _RIGHT if a.startswith("right") and b.startswith("right") else _MIDDLE


def draw_run(run: Run, count: int) -> list[str]:
    """Draw images of a reduced run into its `pictures/`; returns the URIs of the pictures. Videos have their own.

    Args:
        count: number of images, spread evenly over those with people.
    """
    skeleton = table_skeleton(run.uri)
    uris: list[str] = []
    chosen = _choose(run, count)
    people = people_of(run, set(chosen))
    for image_id, pixels in pixels_of(run, chosen):
        picture = draw_people(pixels, people[image_id], skeleton)
        uri = run.path("pictures", f"{len(uris):04d}-{storage.plain_name(image_id)}.jpg")
        storage.write_bytes(uri, encode_jpeg(picture))
        uris.append(uri)
    return uris


def track_colour(track: int) -> Colour:
    """The colour of a track, RGB."""
    red, green, blue = colorsys.hsv_to_rgb(track * _GOLDEN % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _choose(run: Run, count: int) -> dict[str, str]:
    """Image id to shard of `count` images with people; images without people fill up if these are too few."""
    with_people: dict[str, str] = {}
    without_people: dict[str, str] = {}
    for table in read_table(run.uri, "images", ["image_id", "shard", "status", "num_people", "pts"]):
        for row in table.to_pylist():
            if row["status"] == "ok" and row["pts"] is None:
                (with_people if row["num_people"] else without_people)[row["image_id"]] = row["shard"]
    ids = list(with_people) if len(with_people) >= count else [*with_people, *without_people][:count]
    picked = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int))] if ids else []
    return {image_id: with_people.get(image_id) or without_people[image_id] for image_id in picked}
