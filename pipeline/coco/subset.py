"""A part of an annotation file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def subset(content: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same file with these images alone, and their annotations."""
    ids = {image["id"] for image in images}
    annotations = [entry for entry in content.get("annotations", ()) if entry.get("image_id") in ids]
    return {**content, "images": list(images), "annotations": annotations}
