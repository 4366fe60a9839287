"""Where people are: networks that find boxes, boxes that are given, or the whole image where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.detectors.darknet import Darknet
from pipeline.errors import UserError
from pipeline.people import Boxes

if TYPE_CHECKING:
    from pipeline.runtime.device import Compute
    from pipeline.settings.tree import DetectorSettings

__all__ = ["Darknet", "Detector", "build_detector"]


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
        UserError: an unknown name, or files that don't fit.
    """
    # Imported here: whoever trains a network of this package on a bare machine has not all of what these need.
    from pipeline.detectors.darknet_detector import DarknetDetector
    from pipeline.detectors.exported import OUTPUT_FORMATS, ExportedDetector
    from pipeline.detectors.torchvision_detector import TorchvisionDetector, torchvision_names, unknown_detector
    from pipeline.detectors.whole_image import WholeImage
    from pipeline.settings.tree import GIVEN, detector_batch

    if settings.name == GIVEN:
        return None
    if settings.name == "whole_image":
        return WholeImage(detector_batch(settings, compute.device.type))
    if settings.name == "darknet":
        return DarknetDetector.from_settings(settings, compute)
    if settings.name in OUTPUT_FORMATS:
        return ExportedDetector.from_settings(settings, compute)
    if settings.name in torchvision_names():
        return TorchvisionDetector.from_settings(settings, compute)
    raise UserError(unknown_detector(settings.name))
