"""Detection models of torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache

import torch
from torch import nn
from torchvision import models

from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.runtime.device import Compute, Image
from pipeline.settings.tree import OWN_DETECTORS, DetectorSettings, detector_batch
from pipeline.weights.checkpoints import load_weights

_PERSON = 1  # class index in torchvision's COCO models
_BACKGROUND_AND_COCO = 91


@cache
def torchvision_names() -> list[str]:
    """Names of the detection models, including those for masks and keypoints, which return boxes too."""
    return models.list_models(module=models.detection)


def default_weights(name: str) -> str:
    """The name of the weights that torchvision downloads for a model, such as `SSDLite320_..._Weights.COCO_V1`.

    Raises:
        UserError: torchvision has no such detection model.
    """
    if name not in torchvision_names():
        raise UserError(unknown_detector(name))
    return str(models.get_model_weights(name).DEFAULT)


def unknown_detector(name: str) -> str:
    """The error message for an unknown name of a detector."""
    known = [*OWN_DETECTORS, *torchvision_names()]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"--detector.name {name}: no such detector; {hint}Known: {', '.join(known)}"


class TorchvisionDetector:
    """Person boxes from a torchvision detection model, in float32.

    These models pad a batch to its largest image, so that results would depend on which images share it. Images are
    therefore processed one by one.
    """

    def __init__(self, model: nn.Module, settings: DetectorSettings, compute: Compute) -> None:
        self.batch = detector_batch(settings, compute.device.type)
        self._confidence = settings.least_confidence
        self._device = compute.device
        self._computing = compute.computing
        self._model = model.eval().requires_grad_(False).to(compute.device)

    @classmethod
    def from_settings(cls, settings: DetectorSettings, compute: Compute) -> TorchvisionDetector:
        """Load the model, with `detector.weights` or else with the weights that torchvision downloads.

        Raises:
            UserError: the weights do not fit, or the download failed.
        """
        if settings.weights is not None:
            model = models.get_model(
                settings.name, weights=None, weights_backbone=None, num_classes=_BACKGROUND_AND_COCO
            )
            load_weights(model, settings.weights, f"--detector.name {settings.name}")
            return cls(model, settings, compute)
        try:
            model = models.get_model(settings.name, weights="DEFAULT", weights_backbone=None)
        except OSError as error:
            raise UserError(
                f"--detector.name {settings.name}: torchvision cannot download its weights ({error}); set "
                "--detector.weights to a file, or use another detector"
            ) from None
        return cls(model, settings, compute)

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: Image) -> Boxes:
        pixels = torch.as_tensor(image).to(self._device).permute(2, 0, 1).to(torch.float32) / 255
        with torch.inference_mode(), self._computing():
            detections = self._model([pixels])[0]
        people = (detections["labels"] == _PERSON) & (detections["scores"] > self._confidence)
        return Boxes(detections["boxes"][people].cpu().numpy(), detections["scores"][people].cpu().numpy())
