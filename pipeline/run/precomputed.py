"""COCO ids of images, and person boxes from annotations or another detector; read before any network runs."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.coco.annotations import load_annotations, load_json, person_category
from pipeline.coco.boxes import boxes_by_image
from pipeline.coco.categories import PersonCategory
from pipeline.coco.ids import CocoIds
from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.settings.tree import GIVEN, Settings


@dataclass(frozen=True)
class Precomputed:
    """COCO ids and boxes of the images of a run.

    Attributes:
        coco_ids: by the images' names; None if no COCO file names them.
        boxes: person boxes by COCO id; None unless the detector is `given`.
    """

    coco_ids: CocoIds | None = None
    boxes: dict[int, Boxes] | None = None

    @classmethod
    def load(cls, settings: Settings) -> Precomputed:
        """Read the files that the settings name: ids from the annotations, else a COCO input, else the boxes.

        Raises:
            UserError: a file that cannot be used, or boxes without a file that relates image ids to names.
            storage.MissingObject: a file that does not exist.
        """
        if settings.annotations and "annotations" not in load_annotations(settings.annotations):
            raise UserError(f"{settings.annotations}: has images but no `annotations` to evaluate against")
        is_coco_input = (settings.input.uri or "").endswith(".json")
        ids_uri = settings.annotations or (settings.input.uri if is_coco_input else None)
        boxes = None
        if settings.detector.name == GIVEN:
            boxes_uri = settings.detector.boxes or settings.annotations
            if boxes_uri is None:
                raise UserError("--detector.name given needs --detector.boxes or --annotations")
            content = load_json(boxes_uri)
            if ids_uri is None and isinstance(content, dict) and "images" in content:
                ids_uri = boxes_uri
            if ids_uri is None:
                raise UserError(
                    f"--detector.boxes {boxes_uri} has image ids but no image names; set --annotations to a COCO file "
                    "that has both"
                )
            boxes = boxes_by_image(boxes_uri, content, _named_category(ids_uri))
        if ids_uri is None:
            return cls(None, boxes)
        images = load_annotations(ids_uri)["images"]
        return cls(CocoIds((image["file_name"], image["id"]) for image in images), boxes)

    def coco_id(self, key: str) -> int | None:
        """The COCO id of the image with this key, if it is known."""
        return None if self.coco_ids is None else self.coco_ids.get(key)

    def boxes_of(self, coco_id: int | None) -> Boxes | None:
        """The boxes of an image; None if the run has no given boxes at all."""
        if self.boxes is None:
            return None
        return self.boxes.get(-1 if coco_id is None else coco_id, Boxes.empty())


def _named_category(uri: str) -> PersonCategory | None:
    """The person category of a COCO file; None if the file has no categories."""
    category = person_category(uri)
    return None if category.id is None else category
