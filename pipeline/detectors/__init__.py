"""Where people are: networks that find boxes, boxes that are given, or the whole image where that is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.compute import Compute
from pipeline.config import DetectorSettings
from pipeline.detectors.darknet import Darknet
from pipeline.detectors.darknet_detector import DarknetDetector
from pipeline.detectors.torchvision_detector import TorchvisionDetector, torchvision_names
from pipeline.detectors.whole_image import WholeImage
from pipeline.people import Boxes

__all__ = ["GIVEN", "Darknet", "Detector", "build_detector"]

GIVEN = "given"


class Detector(Protocol):
    """Finds people in images.

    Attributes:
        batch: how many images it wants at a time; results never depend on which images share a batch.
    """

    batch: int

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Person boxes, in image pixels, of at most `batch` images (H, W, 3) uint8 RGB."""
        ...


def build_detector(settings: DetectorSettings, compute: Compute) -> Detector | None:
    """The detector that the settings name; None where boxes are given with the images.

    Raises:
        ValueError: an unknown name, or files that don't fit.
    """
    if settings.name == GIVEN:
        return None
    if settings.name == "whole_image":
        return WholeImage(settings.batch)
    if settings.name == "darknet":
        return DarknetDetector.from_settings(settings, compute)
    if settings.name in torchvision_names():
        return TorchvisionDetector.from_settings(settings, compute)
    known = ["darknet", GIVEN, "whole_image", *torchvision_names()]
    close = difflib.get_close_matches(settings.name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"detector.name is {settings.name!r}: no such detector; {hint}Known: {', '.join(known)}")
