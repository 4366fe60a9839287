"""Boxes of annotations and of detection results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.coco.categories import PersonCategory
from pipeline.coco.errors import AnnotationError
from pipeline.coco.ids import image_id
from pipeline.people import Boxes


def box_xyxy(entry: Mapping[str, Any], source: str) -> np.ndarray | None:
    """(4,) float32 x1 y1 x2 y2 of an annotation; None if it is smaller than a pixel.

    Args:
        entry: with `bbox` x y width height.
        source: the file, for error messages.

    Raises:
        AnnotationError: no box, or a value that is not a finite number.
    """
    try:
        x, y, width, height = (float(v) for v in entry["bbox"])
    except (KeyError, TypeError, ValueError):
        raise AnnotationError(
            f"{source}: annotation {entry.get('id')} has the box {entry.get('bbox')}; expected [x, y, width, height]"
        ) from None
    if not np.isfinite([x, y, width, height]).all():
        raise AnnotationError(f"{source}: annotation {entry.get('id')} has a box with a value that is not finite")
    return np.array([x, y, x + width, y + height], np.float32) if width >= 1 and height >= 1 else None


def boxes_by_image(source: str, content: Any, category: PersonCategory | None = None) -> dict[int | str, Boxes]:
    """Person boxes by image id, from COCO detection results or from annotations.

    Crowds are left out; boxes of annotations have score 1.

    Args:
        source: the file, for error messages.
        content: a list of results, or a dict with `annotations`.
        category: the person category of detection results; by default all of them must have the same one.

    Raises:
        AnnotationError: the content is neither, an entry lacks image_id or bbox, or no result is of a person.
    """
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise AnnotationError(f"{source}: neither COCO detection results (a list) nor annotations")
    if isinstance(content, dict) or category is None:
        category = PersonCategory(content.get("categories") or () if isinstance(content, dict) else (), source)
    grouped: dict[int | str, list[list[float]]] = {}
    others: set[Any] = set()
    for number, entry in enumerate(entries):
        try:
            if not category.accepts(entry):
                others.add(entry["category_id"])
                continue
            if entry.get("iscrowd"):
                continue
            x, y, width, height = entry["bbox"]
            image = image_id(entry["image_id"], f"{source}: entry {number}")
            grouped.setdefault(image, []).append([x, y, x + width, y + height, entry.get("score", 1.0)])
        except AnnotationError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError):
            raise AnnotationError(f"{source}: entry {number} lacks image_id or a bbox of four numbers") from None
    if others and not grouped and not isinstance(content, dict):
        raise AnnotationError(
            f"{source}: no box is of a person: category_id of the boxes is {', '.join(sorted(map(str, others)))}, the "
            f"annotations' person is {category.id}"
        )
    stacked = {image: np.array(rows, np.float32) for image, rows in grouped.items()}
    for image, rows in stacked.items():
        if not np.isfinite(rows).all():
            raise AnnotationError(f"{source}: image {image} has a box or score that is not a finite number")
    return {image: Boxes(rows[:, :4], rows[:, 4]) for image, rows in stacked.items()}
