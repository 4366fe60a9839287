"""A person detector's training: its images, and how well it does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import storage
from pipeline.coco.annotations import load_annotations
from pipeline.coco.errors import AnnotationError
from pipeline.coco.subset import subset
from pipeline.detectors.darknet import Darknet
from pipeline.detectors.darknet_detector import DarknetDetector
from pipeline.evaluation import evaluate_boxes
from pipeline.people import Boxes
from pipeline.report.draw import contact_sheet, draw_boxes
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings
from pipeline.training.cache import cached
from pipeline.training.detector.data import BoxLabels, ImageSet, boxes_of, shrink_images
from pipeline.training.detector.task import DetectorTask
from pipeline.training.detector.teacher import YoloxTeacher
from pipeline.training.experiment import ValidationResult
from pipeline.training.photographs import read_pixels
from pipeline.training.settings import AnnotatedSet, TrainSettings
from pipeline.weights.checkpoints import load_weights

_PICTURES = 12
_SHOWN_SCORE = 0.3
_FIRST_OBJECTNESS = 0.01  # before anything is learnt: most of an image is background
# COCO's curve wants weak boxes too, and takes the best hundred itself: a limit here would only tighten NMS.
_CONFIDENCE, _NMS_IOU, _MAX_BOXES = 0.01, 0.65, 10_000


class DetectorExperiment:
    """See `pipeline.training.experiment.Experiment`."""

    def __init__(self, network: Darknet, cfg: str, task: DetectorTask, settings: TrainSettings) -> None:
        self.network = network
        self.task = task
        self.metadata = {"network": "darknet", "cfg": cfg, "input_size": str(settings.detector.input_size)}
        self._cfg = cfg
        self._settings = settings

    @classmethod
    def from_settings(cls, settings: TrainSettings, device: torch.device) -> DetectorExperiment:
        """Make the network and read the images; what is wrong with settings is told first."""
        if settings.validation is not None:
            _validation(settings.validation)
        cfg = storage.read_bytes(settings.detector.cfg).decode()
        torch.manual_seed(settings.optimisation.seed)
        network = Darknet(cfg)
        if settings.detector.weights is not None:
            load_weights(network, settings.detector.weights, settings.detector.cfg)
        else:
            init_objectness_bias(network)
        s = settings.detector
        teacher = None
        if s.teacher is not None:
            compute = Compute(device, torch.float32)
            cells = network.cells(s.input_size, s.input_size)
            batch = settings.optimisation.batch // settings.workers
            teacher = YoloxTeacher(s.teacher, batch, s.input_size, cells, compute)
        task = DetectorTask(read_images(settings), network, s.input_size, s.augmentation, teacher, s.teacher_share)
        return cls(network, cfg, task, settings)

    def __str__(self) -> str:
        return f"{self._settings.detector.cfg}, {len(self.task.weights)} images"

    def measure(self, weights: dict[str, Tensor]) -> ValidationResult:
        annotated = self._settings.validation
        assert annotated is not None
        network = Darknet(self._cfg)
        network.load_state_dict(weights)
        truth = _validation(annotated)
        results: list[dict[str, Any]] = []
        pictures: list[np.ndarray] = []
        for image, pixels, boxes in _detections(network, truth["images"], annotated, self._settings):
            for (x1, y1, x2, y2), score in zip(boxes.xyxy.tolist(), boxes.scores.tolist(), strict=True):
                box = [x1, y1, x2 - x1, y2 - y1]
                results.append({"image_id": image["id"], "bbox": box, "score": score})
            if len(pictures) < _PICTURES:
                pictures.append(draw_boxes(pixels, boxes.xyxy[boxes.scores >= _SHOWN_SCORE]))
        metrics = evaluate_boxes(results, truth)
        numbers = {"ap": metrics.ap, "ap50": metrics.ap50, "ap_m": metrics.ap_m, "ap_l": metrics.ap_l, "ar": metrics.ar}
        return ValidationResult(numbers, contact_sheet(pictures))


def read_images(settings: TrainSettings) -> ImageSet:
    """Every image to learn from, from the cache where there is one.

    Raises:
        AnnotationError: annotations or images that cannot be used, named.
    """
    side, incomplete = settings.detector.input_size, settings.detector.teacher is not None

    def read() -> ImageSet:
        return ImageSet.join([shrink_images(_images(annotated, incomplete), side) for annotated in settings.sets])

    return cached(settings, {"input_size": side, "incomplete": incomplete}, ImageSet, read)


def _images(annotated: AnnotatedSet, incomplete: bool) -> Iterator[tuple[np.ndarray, BoxLabels, float]]:
    content = load_annotations(annotated.annotations)
    people = boxes_of(content, annotated.annotations, incomplete)
    for image in content["images"]:
        if image["id"] in people and annotated.source in (None, image.get("source")):
            pixels = read_pixels(annotated.annotations, annotated.images, image)
            yield pixels, people[image["id"]], annotated.weight


def _validation(annotated: AnnotatedSet) -> dict[str, Any]:
    """The COCO file to measure on, with the images that are asked for and have all their boxes.

    Raises:
        AnnotationError: it cannot be used, or has no such image.
    """
    content = load_annotations(annotated.annotations)
    complete = boxes_of(content, annotated.annotations)
    asked = [image for image in content["images"] if annotated.source in (None, image.get("source"))]
    images = [image for image in asked if image["id"] in complete]
    if not images:
        raise AnnotationError(f"validation: {annotated.annotations} has no image with complete boxes to measure on")
    read_pixels(annotated.annotations, annotated.images, images[0])
    return subset(content, images)


def init_objectness_bias(network: Darknet) -> None:
    """Let a random network begin by finding hardly anything, so that background doesn't drown the first steps."""
    for before, layer in network.outputs():
        assert before.bias is not None
        bias = before.bias.detach().view(len(layer.anchors), -1)
        nn.init.constant_(bias[:, 4], math.log(_FIRST_OBJECTNESS / (1 - _FIRST_OBJECTNESS)))


def _detections(
    network: Darknet, images: list[dict[str, Any]], annotated: AnnotatedSet, settings: TrainSettings
) -> Iterator[tuple[dict[str, Any], np.ndarray, Boxes]]:
    wanted = DetectorSettings(
        name="darknet",
        input_size=settings.detector.input_size,
        confidence=_CONFIDENCE,
        nms_iou=_NMS_IOU,
        max_boxes=_MAX_BOXES,
    )
    compute = Compute.resolve(settings.compute.device, settings.compute.precision)
    detector = DarknetDetector(network, wanted, compute)
    for start in range(0, len(images), detector.batch):
        group = images[start : start + detector.batch]
        pixels = [read_pixels(annotated.annotations, annotated.images, image) for image in group]
        yield from zip(group, pixels, detector.detect(pixels), strict=True)
