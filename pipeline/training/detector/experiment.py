"""The experiment of detector training: network, images and teacher, and validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import storage
from pipeline.coco.annotations import load_annotations
from pipeline.detectors.darknet import Darknet, DarknetError
from pipeline.detectors.darknet_detector import DarknetDetector, DarknetFacts
from pipeline.report.draw import contact_sheet, draw_boxes
from pipeline.runtime.device import Compute
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import DetectorSettings
from pipeline.training.annotated_images import read_pixels
from pipeline.training.cache import cached
from pipeline.training.detector.data import BoxLabels, ImageSet, labels_by_image, shrink_images
from pipeline.training.detector.hard_negatives import MISTAKE_CONFIDENCE, mined_weights
from pipeline.training.detector.task import DetectorTask
from pipeline.training.detector.teacher import YoloxTeacher
from pipeline.training.detector.validation import CONFIDENCE, MAX_BOXES, NMS_IOU, BoxValidation
from pipeline.training.experiment import ValidationResult
from pipeline.training.settings import AnnotatedSet, TrainSettings
from pipeline.weights.checkpoints import load_weights

_PICTURES = 12  # on the sheet of predictions
_DRAWN_SCORE = 0.3
_INITIAL_OBJECTNESS = 0.01  # most of an image is background


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
        """Build the network and the teacher, read the images; settings are checked before images are read.

        Raises:
            AnnotationError: annotations or images that cannot be used.
            UserError: a description, weights or a teacher that cannot be used.
        """
        if settings.validation is not None:
            BoxValidation.read(settings.validation)
        cfg = storage.read_bytes(settings.detector.cfg).decode(errors="replace")
        torch.manual_seed(settings.optimisation.seed)
        try:
            network = Darknet(cfg)
        except DarknetError as error:
            raise DarknetError(f"--detector.cfg {settings.detector.cfg}: {error}") from None
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
        task = DetectorTask(
            read_images(settings, network), network, s.input_size, s.augmentation, teacher, s.teacher_share
        )
        return cls(network, cfg, task, settings)

    def __str__(self) -> str:
        return f"{self._settings.detector.cfg}, {len(self.task.weights)} images"

    def validate(self, weights: dict[str, Tensor]) -> ValidationResult:
        """Box AP and AR."""
        annotated = self._settings.validation
        assert annotated is not None
        network = Darknet(self._cfg)
        network.load_state_dict(weights)
        settings = DetectorSettings(
            name="darknet",
            input_size=self._settings.detector.input_size,
            confidence=CONFIDENCE,
            nms_iou=NMS_IOU,
            max_boxes=MAX_BOXES,
        )
        compute = Compute.resolve(self._settings.compute.device, self._settings.compute.precision, mode="eager")
        detector = _detector(network, settings, compute)
        validation = BoxValidation.read(annotated)
        pictures: list[np.ndarray] = []
        found = []
        for pixels, boxes in validation.boxes(detector):
            if len(pictures) < _PICTURES:
                pictures.append(draw_boxes(pixels, boxes.xyxy[boxes.scores >= _DRAWN_SCORE]))
            found.append(boxes)
        metrics = validation.accuracy(found)
        numbers = {"ap": metrics.ap, "ap50": metrics.ap50, "ap_m": metrics.ap_m, "ap_l": metrics.ap_l, "ar": metrics.ar}
        return ValidationResult(numbers, contact_sheet(pictures))


def _detector(network: Darknet, settings: DetectorSettings, compute: Compute) -> DarknetDetector:
    """A detector of a network, which is changed."""
    facts = DarknetFacts.of(network, settings.input_size)
    return DarknetDetector(TorchNetwork(network, compute), facts, settings, compute)


def read_images(settings: TrainSettings, network: Darknet) -> ImageSet:
    """All images to train on, from the cache if it exists.

    Args:
        network: with its initial weights.

    Raises:
        AnnotationError: annotations or images that cannot be used.
    """
    s = settings.detector
    side, incomplete = s.input_size, s.teacher is not None
    options: dict[str, Any] = {"input_size": side, "incomplete": incomplete}
    if s.hard_negatives:
        options |= {"hard_negatives": s.hard_negatives, "weights": storage.basename(s.weights or "")}

    def read() -> ImageSet:
        images = ImageSet.join([shrink_images(_images(annotated, incomplete), side) for annotated in settings.sets])
        return _with_hard_negatives(images, network, settings) if s.hard_negatives else images

    return cached(settings, options, ImageSet, read)


def _with_hard_negatives(images: ImageSet, network: Darknet, settings: TrainSettings) -> ImageSet:
    """The images with more weight on those in which the initial network finds people where there are none."""
    compute = Compute.resolve(settings.compute.device, settings.compute.precision, mode="eager")
    sure = DetectorSettings(
        name="darknet", input_size=settings.detector.input_size, confidence=MISTAKE_CONFIDENCE, weak_confidence=None
    )
    detector = _detector(copy.deepcopy(network), sure, compute)
    return replace(images, weights=mined_weights(images, detector, settings.detector.hard_negatives))


def _images(annotated: AnnotatedSet, incomplete: bool) -> Iterator[tuple[np.ndarray, BoxLabels, float]]:
    content = load_annotations(annotated.annotations)
    people = labels_by_image(content, annotated.annotations, incomplete)
    for image in content["images"]:
        if image["id"] in people and annotated.source in (None, image.get("source")):
            pixels = read_pixels(annotated.annotations, annotated.images, image)
            yield pixels, people[image["id"]], annotated.weight


def init_objectness_bias(network: Darknet) -> None:
    """Give a random network a low objectness, so that the loss of the background does not dominate the first steps."""
    for before, layer in network.outputs():
        assert before.bias is not None
        before.bias.detach()[layer.score_channels] = math.log(_INITIAL_OBJECTNESS / (1 - _INITIAL_OBJECTNESS))
