"""The accuracy of a person detector on images whose people all have boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.coco.annotations import load_annotations
from pipeline.coco.errors import AnnotationError
from pipeline.coco.subset import subset
from pipeline.detectors import Detector
from pipeline.evaluation import evaluate_boxes
from pipeline.evaluation.keypoints import Metrics
from pipeline.people import Boxes
from pipeline.training.annotated_images import read_pixels
from pipeline.training.detector.data import labels_by_image
from pipeline.training.settings import AnnotatedSet

# COCO's precision-recall curve includes boxes with low scores, and the evaluation itself takes the best hundred of an
# image: a lower limit here would only tighten NMS.
CONFIDENCE, NMS_IOU, MAX_BOXES = 0.01, 0.65, 10_000


@dataclass(frozen=True)
class BoxValidation:
    """Images whose people all have boxes.

    Attributes:
        truth: content of a COCO file.
        pixels: reads the image of one of its entries, (H, W, 3) uint8 RGB.
    """

    truth: dict[str, Any]
    pixels: Callable[[Mapping[str, Any]], np.ndarray]

    @classmethod
    def read(cls, annotated: AnnotatedSet, setting: str = "validation") -> BoxValidation:
        """Read annotations without the images that have incomplete boxes, and the first image as a check of the folder.

        Args:
            setting: that names them, for error messages.

        Raises:
            AnnotationError: they cannot be used, or no image has complete boxes.
        """
        name = annotated.annotations
        content = load_annotations(name)
        complete = labels_by_image(content, name)
        selected = [image for image in content["images"] if annotated.source in (None, image.get("source"))]
        images = [image for image in selected if image["id"] in complete]
        if not images:
            raise AnnotationError(f"--{setting} {name} has no image with complete boxes")
        read_pixels(name, annotated.images, images[0])
        return cls(subset(content, images), lambda image: read_pixels(name, annotated.images, image))

    @property
    def num_people(self) -> int:
        return sum(len(people.boxes) for people in labels_by_image(self.truth, "the annotations").values())

    def boxes(self, detector: Detector) -> Iterator[tuple[np.ndarray, Boxes]]:
        """Each image (H, W, 3) uint8 RGB with its boxes."""
        images = self.truth["images"]
        for start in range(0, len(images), detector.batch):
            pixels = [self.pixels(image) for image in images[start : start + detector.batch]]
            yield from zip(pixels, detector.detect(pixels), strict=True)

    def accuracy(self, boxes: Sequence[Boxes]) -> Metrics:
        """COCO's metrics of the boxes of each image, in order."""
        results = [
            {"image_id": image["id"], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for image, found in zip(self.truth["images"], boxes, strict=True)
            for (x1, y1, x2, y2), score in zip(found.xyxy.tolist(), found.scores.tolist(), strict=True)
        ]
        return evaluate_boxes(results, self.truth)
