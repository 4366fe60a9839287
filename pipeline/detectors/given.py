"""Boxes that come with the images: labelled by hand, or found by someone else's detector."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.people import Boxes


def load_given_boxes(uri: str) -> dict[int, Boxes]:
    """Boxes by image id from a COCO detection results file, or from the annotations themselves.

    Of annotations, every person that is not a crowd counts, with score 1; of results, category 1 (or none named).

    Raises:
        ValueError: the file is neither.
    """
    return _boxes_by_image(uri, _read_entries(uri))


def _read_entries(uri: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise ValueError(f"{uri}: not valid JSON ({error})") from None
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(f"{uri}: neither COCO detection results (a list) nor annotations")
    return entries


def _boxes_by_image(uri: str, entries: list[dict[str, Any]]) -> dict[int, Boxes]:
    grouped: dict[int, list[list[float]]] = {}
    for number, entry in enumerate(entries):
        try:
            if entry.get("category_id", 1) != 1 or entry.get("iscrowd"):
                continue
            x, y, width, height = entry["bbox"]
            grouped.setdefault(entry["image_id"], []).append([x, y, x + width, y + height, entry.get("score", 1.0)])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise ValueError(f"{uri}: entry {number} lacks image_id or a bbox of four numbers") from None
    stacked = {image: np.array(rows, np.float32) for image, rows in grouped.items()}
    return {image: Boxes(rows[:, :4], rows[:, 4]) for image, rows in stacked.items()}
