"""Person detectors: Darknet, exported and torchvision networks, and the whole image as a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline.detectors.darknet import Darknet
from pipeline.errors import UserError
from pipeline.people import Boxes

if TYPE_CHECKING:
    from pipeline.runtime.device import Compute, Image
    from pipeline.settings.tree import DetectorSettings

__all__ = ["Darknet", "Detector", "build_detector"]


class Detector(Protocol):
    """A person detector.

    Attributes:
        batch: maximum number of images per call; results never depend on which images share a batch.
    """

    batch: int

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """Person boxes, in image pixels, for each of at most `batch` images (H, W, 3) uint8 RGB.

        Those above `detector.confidence` come first, then the weak ones, see `DetectorSettings.least_confidence`.
        """
        ...


def build_detector(settings: DetectorSettings, compute: Compute) -> Detector | None:
    """The detector that the settings name; None if boxes are read from a file (`given`).

    Raises:
        UserError: an unknown name, or files that do not fit.
    """
    # Imported here: the modules for training work without the dependencies of these.
    from pipeline.detectors.darknet_detector import DarknetDetector
    from pipeline.detectors.exported import OUTPUT_FORMATS, ExportedDetector
    from pipeline.detectors.pose_detector import PoseDetector
    from pipeline.detectors.whole_image import WholeImage
    from pipeline.settings.tree import GIVEN, POSE_DETECTORS, detector_batch

    if settings.name == GIVEN:
        return None
    if settings.name == "whole_image":
        return WholeImage(detector_batch(settings, compute.device.type))
    if settings.name == "darknet":
        return DarknetDetector.from_settings(settings, compute)
    if settings.name in POSE_DETECTORS:
        return PoseDetector.from_settings(settings, compute)
    if settings.name in OUTPUT_FORMATS:
        return ExportedDetector.from_settings(settings, compute)
    # Imported here: torchvision takes seconds.
    from pipeline.detectors.torchvision_detector import TorchvisionDetector, torchvision_names, unknown_detector

    if settings.name in torchvision_names():
        return TorchvisionDetector.from_settings(settings, compute)
    raise UserError(unknown_detector(settings.name))
