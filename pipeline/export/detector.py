"""Darknet detectors as exported files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.darknet_detector import DarknetDetector, DarknetFacts, load_darknet
from pipeline.detectors.letterbox import DARKNET, STRETCHED, letterbox
from pipeline.export.exported import Measure, NetworkToExport, Truth, provenance, weights_to_export
from pipeline.export.settings import ExportSettings
from pipeline.people import Boxes
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import DetectorSettings
from pipeline.storage import basename
from pipeline.training.detector.validation import CONFIDENCE, MAX_BOXES, NMS_IOU, BoxValidation
from pipeline.training.settings import AnnotatedSet

_LIKELY = 0.1  # objectness from which boxes are compared
_OUTPUT = "(batch, N, 5 + classes): centre x, centre y, width, height in pixels of the input; objectness; class scores"
_SURE = 0.3  # score from which a box counts in comparisons between networks
_MAX_DISAGREEMENT = 0.1  # of AP; see infra/benchmarks for what INT8 files reach
_CPU = Compute.resolve("cpu", "float32", "torch")


def detector_to_export(settings: ExportSettings, images: Sequence[np.ndarray]) -> NetworkToExport:
    """A Darknet detector, from letterboxed RGB in 0..1 to decoded boxes, objectness and class scores.

    Args:
        images: (H, W, 3) uint8 RGB, to compare on.

    Raises:
        UserError: the weights or annotations cannot be used.
    """
    detector = settings.detector
    assert detector.weights is not None
    path = weights_to_export("detector.weights", detector.weights)
    network = load_darknet(detector.cfg, path)
    facts = DarknetFacts.of(network, detector.input_size)
    described = {"task": "detector", "input": "RGB in 0..1", "output": _OUTPUT}
    pixels = np.zeros((len(images), *facts.size, 3), np.uint8)
    for image, out in zip(images, pixels, strict=True):
        letterbox(image, out, DARKNET if facts.letterbox else STRETCHED)
    return NetworkToExport(
        name=path.stem,
        module=network,
        size=facts.size,
        output="boxes",
        metadata=described | facts.metadata() | provenance(path),
        inputs=_CPU.to_input(torch.from_numpy(pixels)).contiguous(),
        difference=_difference,
        truth=partial(_truth, settings, network, facts, images),
        is_annotated=settings.annotations is not None,
    )


def people_in(images: Sequence[np.ndarray]) -> list[Boxes]:
    """Boxes of people in images by the shipped detector; the whole image where it finds nobody."""
    detector = DarknetDetector.from_settings(DetectorSettings(weak_confidence=None), _CPU)
    found = []
    for image in images:
        (boxes,) = detector.detect([image])
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        found.append(boxes if len(boxes) else Boxes(whole, np.ones(1, np.float32)))
    return found


def _difference(expected: Tensor, actual: Tensor) -> tuple[float, float]:
    """The largest difference of the sides of likely boxes, in pixels of the input, and of all scores."""
    likely = expected[..., 4] > _LIKELY
    sides = (expected[likely][:, :4] - actual[likely][:, :4]).abs()
    scores = (expected[..., 4:] - actual[..., 4:]).abs()
    return float(sides.max()) if len(sides) else 0.0, float(scores.max())


def _truth(
    settings: ExportSettings, network: torch.nn.Module, facts: DarknetFacts, images: Sequence[np.ndarray]
) -> Truth:
    """The annotations, if there are any; else what the network finds in the images."""
    thresholds = DetectorSettings(confidence=CONFIDENCE, nms_iou=NMS_IOU, max_boxes=MAX_BOXES)

    def detector(network: Network) -> DarknetDetector:
        return DarknetDetector(network, facts, thresholds, _CPU)

    def measured_on(validation: BoxValidation) -> Measure:
        def measure(network: Network) -> Mapping[str, float]:
            return {"AP": validation.accuracy([boxes for _, boxes in validation.boxes(detector(network))]).ap}

        return measure

    if settings.annotations is not None and settings.input is not None:
        annotated = AnnotatedSet(annotations=settings.annotations, images=settings.input)
        validation = BoxValidation.read(annotated, "annotations")
        described = f"{basename(settings.annotations)}, {validation.num_people} people"
        loss = settings.max_loss / 100
        return Truth(described, measured_on(validation), loss, validation.num_people, annotated=True)
    validation = _own_boxes(detector(TorchNetwork(copy.deepcopy(network), _CPU)), images)
    described = f"the boxes of the network itself, {validation.num_people} people"
    return Truth(described, measured_on(validation), _MAX_DISAGREEMENT, validation.num_people, annotated=False)


def _own_boxes(detector: DarknetDetector, images: Sequence[np.ndarray]) -> BoxValidation:
    """The boxes of a detector as if they were annotations."""
    entries = [{"id": number} for number in range(len(images))]
    annotations: list[dict[str, object]] = []
    for entry, image in zip(entries, images, strict=True):
        (boxes,) = detector.detect([image])
        for x1, y1, x2, y2 in boxes.xyxy[boxes.scores >= _SURE].tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            person = {"category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": entry["id"], **person})
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    return BoxValidation(content, lambda entry: images[entry["id"]])
