"""Darknet detectors as exported files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.darknet_detector import DarknetDetector, DarknetFacts, load_darknet
from pipeline.detectors.letterbox import DARKNET, STRETCHED, letterbox
from pipeline.export.exported import Exported, provenance, weights_to_export
from pipeline.export.onnx import to_onnx
from pipeline.export.parity import compare
from pipeline.export.settings import DetectorToExport
from pipeline.people import Boxes
from pipeline.runtime.device import Compute
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import DetectorSettings

_LIKELY = 0.1  # objectness from which boxes are compared
_OUTPUT = "(batch, N, 5 + classes): centre x, centre y, width, height in pixels of the input; objectness; class scores"


def export_detector(detector: DetectorToExport, images: Sequence[np.ndarray]) -> Exported:
    """A Darknet detector as an ONNX file, from letterboxed RGB in 0..1 to decoded boxes, objectness and class scores.

    Args:
        images: (H, W, 3) uint8 RGB, to compare on.

    Raises:
        UserError: the weights cannot be used or exported.
        ExportDiffers: the file computes something else.
    """
    assert detector.weights is not None
    path = weights_to_export("detector.weights", detector.weights)
    compute = Compute.resolve("cpu", "float32")
    network = load_darknet(detector.cfg, path)
    facts = DarknetFacts.of(network, detector.input_size)
    described = {"task": "detector", "input": "RGB in 0..1", "output": _OUTPUT}
    metadata = described | facts.metadata() | provenance(path)
    data = to_onnx(network, facts.size, "boxes", metadata)
    pixels = np.zeros((len(images), *facts.size, 3), np.uint8)
    for image, out in zip(images, pixels, strict=True):
        letterbox(image, out, DARKNET if facts.letterbox else STRETCHED)
    inputs = compute.to_input(torch.from_numpy(pixels))
    parity = compare(TorchNetwork(network, compute), data, inputs, compute, _difference)
    return Exported(f"{path.stem}.onnx", data, metadata, parity)


def people_in(images: Sequence[np.ndarray]) -> list[Boxes]:
    """Boxes of people in images by the shipped detector; the whole image where it finds nobody."""
    settings = DetectorSettings(weights="person_small")
    detector = DarknetDetector.from_settings(settings, Compute.resolve("cpu", "float32"))
    found = []
    for image in images:
        (boxes,) = detector.detect([image])
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        found.append(boxes if len(boxes.xyxy) else Boxes(whole, np.ones(1, np.float32)))
    return found


def _difference(expected: Tensor, actual: Tensor) -> tuple[float, float]:
    """Of the sides of likely boxes, and of all scores."""
    likely = expected[..., 4] > _LIKELY
    sides = (expected[likely][:, :4] - actual[likely][:, :4]).abs()
    scores = (expected[..., 4:] - actual[..., 4:]).abs()
    return float(sides.max()) if len(sides) else 0.0, float(scores.max())
