"""Images that exported networks are compared on."""

from __future__ import annotations

import numpy as np

from pipeline.errors import UserError
from pipeline.images import DecodeLimits, ImageRefused
from pipeline.settings.tree import InputSettings
from pipeline.sources import plan_collection, read_shard


def read_images(uri: str, count: int) -> list[np.ndarray]:
    """The first readable images of a collection, (H, W, 3) uint8 RGB each, at most `count`.

    Raises:
        UserError, OSError: it is not a collection, or has no readable image.
    """
    limits = DecodeLimits()
    images: list[np.ndarray] = []
    for position, planned in enumerate(plan_collection(InputSettings(uri=uri))):
        for item in read_shard(planned.at(position), limits):
            if item.status != "ok":
                continue
            try:
                images.append(item.decode(limits).pixels)
            except ImageRefused:
                continue
            if len(images) == count:
                return images
    if not images:
        raise UserError(f"--input {uri} has no readable image")
    return images
