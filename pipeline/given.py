"""What comes with the images, before any network: their COCO ids, and boxes made by hand or by another detector."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.config import GIVEN, Settings
from pipeline.people import Boxes
from pipeline.sources import CocoIds, read_coco


@dataclass(frozen=True)
class Given:
    """What is known of the images of a run.

    Attributes:
        coco_ids: ids by the images' names, where a COCO file names them.
        boxes: person boxes by COCO id, where the detector is `given`.
    """

    coco_ids: CocoIds | None = None
    boxes: dict[int, Boxes] | None = None

    @classmethod
    def load(cls, settings: Settings) -> Given:
        """Read the files that the settings name. Ids come from annotations, else from a COCO input, else the boxes.

        Raises:
            ValueError: a file that cannot be used, or given boxes that nothing ties to the images.
            storage.MissingObject: a file that isn't there.
        """
        if settings.annotations and "annotations" not in read_coco(settings.annotations):
            raise ValueError(f"{settings.annotations}: has images but no `annotations` to evaluate against")
        boxes_uri = settings.detector.boxes or settings.annotations
        boxes = names = None
        if settings.detector.name == GIVEN:
            if boxes_uri is None:
                raise ValueError("detector.name is given, but no boxes are: set detector.boxes, or annotations")
            content = _read_json(boxes_uri)
            boxes = boxes_by_image(boxes_uri, content)
            names = boxes_uri if isinstance(content, dict) and "images" in content else None
        is_coco = (settings.input.uri or "").endswith(".json")
        ids_uri = settings.annotations or (settings.input.uri if is_coco else names)
        if boxes is not None and ids_uri is None:
            raise ValueError(
                f"detector.boxes {boxes_uri} holds results by image id; give annotations: they tie ids to file names"
            )
        return cls(CocoIds((i["file_name"], i["id"]) for i in read_coco(ids_uri)["images"]) if ids_uri else None, boxes)

    def coco_id(self, key: str) -> int | None:
        """The COCO id of the image with this key, where it is known."""
        return None if self.coco_ids is None else self.coco_ids.get(key)

    def boxes_of(self, coco_id: int | None) -> Boxes | None:
        """The image's boxes; None where boxes are not given at all."""
        if self.boxes is None:
            return None
        return self.boxes.get(-1 if coco_id is None else coco_id, Boxes.empty())


def _read_json(uri: str) -> Any:
    try:
        return json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise ValueError(f"{uri}: not valid JSON ({error})") from None


def boxes_by_image(uri: str, content: Any) -> dict[int, Boxes]:
    """Boxes by image id from COCO detection results, or from annotations.

    Of annotations, every person that is not a crowd counts, with score 1. Only category 1 counts, or none named.

    Args:
        uri: for error texts.
        content: a list of results, or a dict with `annotations`.

    Raises:
        ValueError: neither, or an entry without image_id or bbox.
    """
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(f"{uri}: neither COCO detection results (a list) nor annotations")
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
    for image, rows in stacked.items():
        if not np.isfinite(rows).all():
            raise ValueError(f"{uri}: image {image} has a box or score that is not a finite number")
    return {image: Boxes(rows[:, :4], rows[:, 4]) for image, rows in stacked.items()}
