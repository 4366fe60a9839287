"""COCO ids of images, and person boxes from annotations or another detector; read before any network runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.coco.annotations import load_annotations, load_json, person_category
from pipeline.coco.boxes import boxes_by_image
from pipeline.coco.categories import PersonCategory
from pipeline.coco.ids import CocoIds, check_names, image_id, match_ids
from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.settings.tree import GIVEN, Settings


@dataclass(frozen=True)
class Precomputed:
    """COCO ids and boxes of the images of a run.

    Attributes:
        coco_ids: by the images' keys.
        boxes: person boxes by COCO id; None unless the detector is `given`.
    """

    coco_ids: CocoIds[int | str] = CocoIds()
    boxes: dict[int | str, Boxes] | None = None

    def coco_id(self, key: str) -> int | None:
        """The COCO id of the image with this key; None if it is unknown, or text."""
        id_ = self.coco_ids.get(key)
        return id_ if isinstance(id_, int) else None

    def boxes_of(self, key: str) -> Boxes | None:
        """The boxes of the image with this key; None if the run has no given boxes at all."""
        if self.boxes is None:
            return None
        id_ = self.coco_ids.get(key)
        return Boxes.empty() if id_ is None else self.boxes.get(id_, Boxes.empty())


@dataclass(frozen=True)
class CocoFiles:
    """The content of the COCO files that settings name, before the images of the collection are known.

    Attributes:
        names: `file_name` and id of each annotated image; empty if no COCO file names images.
        boxes: person boxes by COCO id; None unless the detector is `given`.
    """

    names: Sequence[tuple[str, int | str]] = ()
    boxes: dict[int | str, Boxes] | None = None

    @classmethod
    def load(cls, settings: Settings) -> CocoFiles:
        """Read the files that the settings name: ids from the annotations, else a COCO input, else the boxes.

        Raises:
            UserError: a file that cannot be used, or boxes without a file that relates image ids to names.
            storage.MissingObject: a file that does not exist.
        """
        if settings.annotations and "annotations" not in load_annotations(settings.annotations):
            raise UserError(f"{settings.annotations}: has images but no `annotations` to evaluate against")
        is_coco_input = (settings.input.uri or "").lower().endswith(".json")
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
            return cls((), boxes)
        names = [(image["file_name"], image_id(image["id"], ids_uri)) for image in load_annotations(ids_uri)["images"]]
        check_names(names)
        return cls(names, boxes)

    def match(self, keys: Iterable[str]) -> Precomputed:
        """The ids and boxes of the images with these keys; the keys are read only if a COCO file names images.

        Raises:
            UserError: a COCO file uses a name for two ids.
        """
        return Precomputed(match_ids(self.names, keys) if self.names else CocoIds(), self.boxes)


def _named_category(uri: str) -> PersonCategory | None:
    """The person category of a COCO file; None if the file has no categories."""
    category = person_category(uri)
    return None if category.id is None else category
