"""Images with the boxes of their people, shrunk once to the input size of a detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.coco.boxes import box_xyxy
from pipeline.coco.categories import person_entries
from pipeline.coco.errors import AnnotationError
from pipeline.jpeg import encode_jpeg
from pipeline.training import jpegs


class BoxLabels(NamedTuple):
    """Boxes x1 y1 x2 y2 of an image: `boxes` (N, 4) of people, `ignored` (M, 4) of regions that the loss ignores."""

    boxes: np.ndarray
    ignored: np.ndarray


def labels_by_image(annotations: Mapping[str, Any], name: str, incomplete: bool = False) -> dict[int, BoxLabels]:
    """The boxes of every image that can be trained on, by image id, images without people included.

    Crowds are ignored regions. An image whose entry has `"dense_boxes": false` may show people without a box: all of
    it is an ignored region.

    Args:
        annotations: a loaded COCO file; categories other than person are ignored.
        name: the file, for error messages.
        incomplete: include images with `"dense_boxes": false`; by default they are left out.

    Raises:
        AnnotationError: an entry without a valid box, or no size of an image with incomplete boxes.
    """
    boxes: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for image in annotations["images"]:
        if image.get("dense_boxes", True):
            boxes[image["id"]] = ([], [])
        elif incomplete:
            if "width" not in image or "height" not in image:
                raise AnnotationError(
                    f'{name}: image {image["id"]} has no width and height; with "dense_boxes": false it needs them'
                )
            boxes[image["id"]] = ([], [np.array([0, 0, image["width"], image["height"]], np.float32)])
    for entry in person_entries(annotations, name):
        if entry["image_id"] not in boxes:
            continue
        box = box_xyxy(entry, name)
        if box is not None:
            boxes[entry["image_id"]][bool(entry.get("iscrowd"))].append(box)
    return {
        image_id: BoxLabels(*(np.array(b, np.float32).reshape(-1, 4) for b in both)) for image_id, both in boxes.items()
    }


@dataclass(frozen=True)
class ImageSet:
    """Images with their people; item i of each attribute is of image i.

    Attributes:
        jpegs: encoded images.
        people: in pixels of the encoded images.
        weights: (N,) float32, how often an image is drawn, relative to the others.
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
        """Everything as one .npz; see `jpegs.to_npz`."""
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
        """All images of several sets, in order."""
        return cls(
            [jpeg for s in sets for jpeg in s.jpegs],
            [people for s in sets for people in s.people],
            np.concatenate([s.weights for s in sets]),
        )


def shrink_images(images: Iterable[tuple[np.ndarray, BoxLabels, float]], side: int) -> ImageSet:
    """Shrink images to the input size of a network.

    Args:
        images: pixels (H, W, 3) uint8 RGB, people and weight of each image.
        side: of the network's input, pixels: the longer side of larger images; smaller ones are not enlarged.

    Raises:
        AnnotationError: no image.
    """
    encoded: list[bytes] = []
    people: list[BoxLabels] = []
    weights: list[float] = []
    for pixels, labels, weight in images:
        height, width = pixels.shape[:2]
        shrink = min(1.0, side / max(height, width))
        if shrink < 1:
            sides = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            pixels = cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA)
        ratio = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2, np.float32)
        encoded.append(encode_jpeg(pixels))
        people.append(BoxLabels(labels.boxes * ratio, labels.ignored * ratio))
        weights.append(weight)
    if not encoded:
        raise AnnotationError("--sets: no images to train on; no image has complete boxes")
    return ImageSet(encoded, people, np.array(weights, np.float32))
