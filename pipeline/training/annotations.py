"""What all readers of COCO annotations share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class AnnotationError(ValueError):
    """Annotations that cannot be learnt from; the text names the file, the id and what was expected."""


def box_of(entry: Mapping[str, Any], name: str) -> np.ndarray | None:
    """(4,) float32 x1 y1 x2 y2 of an annotation; None where it is smaller than a pixel.

    Args:
        name: of the file, for the error text.

    Raises:
        AnnotationError: no box, or one that is no number.
    """
    try:
        x, y, width, height = (float(v) for v in entry["bbox"])
    except (KeyError, TypeError, ValueError):
        raise AnnotationError(
            f"{name}: annotation {entry.get('id')} has the box {entry.get('bbox')}; expected [x, y, width, height]"
        ) from None
    if not np.isfinite([x, y, width, height]).all():
        raise AnnotationError(f"{name}: annotation {entry.get('id')} has a box that is no number")
    return np.array([x, y, x + width, y + height], np.float32) if width >= 1 and height >= 1 else None
