"""torchvision's detection models, as they are."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn
from torchvision import models

from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.runtime.device import Compute
from pipeline.settings.tree import OWN_DETECTORS, DetectorSettings, detector_batch
from pipeline.weights.checkpoints import load_weights

_PERSON = 1  # in torchvision's COCO classes
_BACKGROUND_AND_COCO = 91


@cache
def torchvision_names() -> list[str]:
    """Names of the detection models; those that need masks or keypoints to train also give boxes."""
    return models.list_models(module=models.detection)


def default_weights(name: str) -> str:
    """The name of the weights that torchvision downloads for a model, e.g. `SSDLite320_..._Weights.COCO_V1`.

    Raises:
        UserError: torchvision has no such detection model.
    """
    if name not in torchvision_names():
        raise UserError(unknown_detector(name))
    return str(models.get_model_weights(name).DEFAULT)


def unknown_detector(name: str) -> str:
    """The error text for a detector that doesn't exist."""
    known = [*OWN_DETECTORS, *torchvision_names()]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"detector.name is {name!r}: no such detector; {hint}Known: {', '.join(known)}"


class TorchvisionDetector:
    """Person boxes by a torchvision detection model.

    These models scale each image to a size of its own and pad a batch to its largest, so an image's result would depend
    on its neighbours; they run image by image, in float32.
    """

    def __init__(self, model: nn.Module, settings: DetectorSettings, compute: Compute) -> None:
        self.batch = detector_batch(settings, compute.device.type)
        self._confidence = settings.confidence
        self._device = compute.device
        self._model = model.eval().requires_grad_(False).to(compute.device)

    @classmethod
    def from_settings(cls, settings: DetectorSettings, compute: Compute) -> TorchvisionDetector:
        """Load the model: from `detector.weights`, else by torchvision's own download.

        Raises:
            UserError: weights that don't fit, or a download that fails.
        """
        if settings.weights is not None:
            model = models.get_model(
                settings.name, weights=None, weights_backbone=None, num_classes=_BACKGROUND_AND_COCO
            )
            load_weights(model, settings.weights, f"detector.name {settings.name}")
            return cls(model, settings, compute)
        try:
            model = models.get_model(settings.name, weights="DEFAULT", weights_backbone=None)
        except OSError as error:
            raise UserError(
                f"detector.name {settings.name}: torchvision could not download its weights ({error}); give one with "
                "detector.weights, or another detector with detector.name"
            ) from None
        return cls(model, settings, compute)

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: np.ndarray) -> Boxes:
        pixels = torch.from_numpy(image).to(self._device).permute(2, 0, 1).to(torch.float32) / 255
        with torch.inference_mode():
            found = self._model([pixels])[0]
        people = (found["labels"] == _PERSON) & (found["scores"] > self._confidence)
        return Boxes(found["boxes"][people].cpu().numpy(), found["scores"][people].cpu().numpy())
