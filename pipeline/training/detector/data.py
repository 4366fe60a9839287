"""Images with the boxes of all people in them, shrunk once to what a detector is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.coco.boxes import box_xyxy
from pipeline.coco.categories import person_entries
from pipeline.coco.errors import AnnotationError
from pipeline.training import jpegs


class BoxLabels(NamedTuple):
    """Boxes x1 y1 x2 y2 of an image: `boxes` (N, 4) of people, `ignored` (M, 4) of regions that tell nothing."""

    boxes: np.ndarray
    ignored: np.ndarray


def boxes_of(annotations: Mapping[str, Any], name: str, incomplete: bool = False) -> dict[int, BoxLabels]:
    """The people of every image that can be learnt from, by image id; images without people among them.

    Crowds are ignored regions. So is all of an image whose entry says `"dense_boxes": false`, which may show people
    without a box.

    Args:
        annotations: a loaded COCO file; categories other than person are passed over.
        name: of the file, for error texts.
        incomplete: keep those; else they are left out.

    Raises:
        AnnotationError: an entry without a proper box, named.
    """
    found: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for image in annotations["images"]:
        if image.get("dense_boxes", True):
            found[image["id"]] = ([], [])
        elif incomplete:
            if "width" not in image or "height" not in image:
                raise AnnotationError(
                    f"{name}: image {image['id']} has no width and height; incomplete boxes need them"
                )
            found[image["id"]] = ([], [np.array([0, 0, image["width"], image["height"]], np.float32)])
    for entry in person_entries(annotations, name):
        if entry["image_id"] not in found:
            continue
        box = box_xyxy(entry, name)
        if box is not None:
            found[entry["image_id"]][bool(entry.get("iscrowd"))].append(box)
    return {
        number: BoxLabels(*(np.array(b, np.float32).reshape(-1, 4) for b in both)) for number, both in found.items()
    }


@dataclass(frozen=True)
class ImageSet:
    """Images with their people; row i of each is image i.

    Attributes:
        jpegs: encoded images.
        people: in pixels of these images.
        weights: (N,) float32, how often an image is drawn, relative to others.
    """

    jpegs: list[bytes]
    people: list[BoxLabels]
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.jpegs)

    def pixels(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return jpegs.decode(self.jpegs[row])

    def to_bytes(self, made_for: str = "") -> bytes:
        """One .npz that holds everything, and what it was made for."""
        arrays: dict[str, np.ndarray] = {}
        for name in BoxLabels._fields:
            boxes = [getattr(people, name) for people in self.people]
            arrays |= {name: np.concatenate(boxes), f"{name}_counts": np.array([len(b) for b in boxes])}
        return jpegs.to_npz(self.jpegs, made_for, weights=self.weights, **arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> ImageSet:
        encoded, arrays = jpegs.from_npz(content)
        columns = [np.split(arrays[name], np.cumsum(arrays[f"{name}_counts"])[:-1]) for name in BoxLabels._fields]
        return cls(encoded, [BoxLabels(*both) for both in zip(*columns, strict=True)], arrays["weights"])

    @classmethod
    def join(cls, sets: Sequence[ImageSet]) -> ImageSet:
        """All images of several sets, in their order."""
        return cls(
            [jpeg for s in sets for jpeg in s.jpegs],
            [people for s in sets for people in s.people],
            np.concatenate([s.weights for s in sets]),
        )


def shrink_images(images: Iterable[tuple[np.ndarray, BoxLabels, float]], side: int) -> ImageSet:
    """Keep images at no more detail than the network is shown.

    Args:
        images: (H, W, 3) uint8 RGB each, its people, and its weight.
        side: of the network's input; longer images are shrunk to it.

    Raises:
        AnnotationError: there is no image.
    """
    encoded: list[bytes] = []
    people: list[BoxLabels] = []
    weights: list[float] = []
    for pixels, found, weight in images:
        height, width = pixels.shape[:2]
        shrink = min(1.0, side / max(height, width))
        if shrink < 1:
            sides = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            pixels = cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA)
        ratio = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2, np.float32)
        encoded.append(jpegs.encode(pixels))
        people.append(BoxLabels(found.boxes * ratio, found.ignored * ratio))
        weights.append(weight)
    if not encoded:
        raise AnnotationError("nothing to learn from: no image has complete boxes")
    return ImageSet(encoded, people, np.array(weights, np.float32))
