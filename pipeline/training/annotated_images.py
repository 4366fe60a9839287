"""Annotated images, local or on object storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.coco.errors import AnnotationError
from pipeline.images import ImageRefused, decode_image


def read_pixels(annotations: str, images: str, image: Mapping[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an annotated image.

    Args:
        annotations: the annotation file, for error messages.
        images: folder that `file_name` is relative to.
        image: its entry in the annotation file.

    Raises:
        AnnotationError: the image is missing or broken.
    """
    uri = storage.join(images, image["file_name"])
    try:
        return decode_image(storage.read_bytes(uri)).pixels
    except (ImageRefused, OSError) as error:
        raise AnnotationError(f"{annotations}: image {image['id']}, {uri}: {error}") from None
