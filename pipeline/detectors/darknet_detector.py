"""A Darknet network at work: letterbox, network, selection, back to image pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline import storage
from pipeline.detectors import yolov3_spp
from pipeline.detectors.darknet import Darknet, DarknetError
from pipeline.detectors.letterbox import letterbox
from pipeline.detectors.selection import likely_rows, select_people
from pipeline.people import Boxes
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings
from pipeline.weights.catalogue import confirm, local_file
from pipeline.weights.checkpoints import load_weights, read_safetensors_metadata


def load_darknet(cfg: str | None, weights: Path) -> Darknet:
    """A trained network.

    Args:
        cfg: URI of its description; by default the one that a .safetensors file brings along, else YOLOv3-SPP's.
        weights: Darknet's own .weights, or .safetensors as training writes it.

    Raises:
        DarknetError: files that cannot be used or don't fit together, named.
    """
    own = weights.suffix == ".safetensors"
    description, name = yolov3_spp.describe(), "YOLOv3-SPP"
    if cfg is not None:
        description, name = storage.read_bytes(cfg).decode(errors="replace"), cfg
    elif own:
        description, name = read_safetensors_metadata(weights).get("cfg", ""), "its own description"
    hint = "" if cfg else "; name its description with detector.cfg"
    try:
        network = Darknet(description)
        if own:
            load_weights(network, str(weights), name)
        else:
            network.load_darknet_weights(weights.read_bytes())
    except DarknetError as error:
        raise DarknetError(f"{name} with {weights}: {error}{hint}") from None
    except ValueError as error:
        raise DarknetError(f"{error}{hint}") from None
    return network


class DarknetDetector:
    """Person boxes by a Darknet network, in batches of one fixed shape.

    Attributes:
        batch: images per call.
        network: prepared: (batch, 3, H, W) in 0..1 to predictions.
    """

    def __init__(self, network: Darknet, settings: DetectorSettings, compute: Compute) -> None:
        self.batch = settings.batch
        self._settings = settings
        self._compute = compute
        self.network = compute.prepare(network)
        side = settings.input_size
        size = network.size if side is None else (side, side)
        self._inputs = np.zeros((settings.batch, *size, 3), np.uint8)

    @classmethod
    def from_settings(cls, settings: DetectorSettings, compute: Compute) -> DarknetDetector:
        """Load the network that the settings name.

        Raises:
            DarknetError: no weights are named, or the files don't fit together.
        """
        if settings.weights is None:
            raise DarknetError("detector.weights is none; a darknet detector needs its .weights file")
        weights = local_file(settings.weights)
        network = load_darknet(settings.cfg, weights)
        confirm(settings.weights, weights, "darknet")
        return cls(network, settings, compute)

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        # The batch always has its full shape, so that an image's result doesn't depend on its neighbours.
        boxes = [letterbox(image, out) for image, out in zip(images, self._inputs, strict=False)]
        with torch.inference_mode():
            inputs = self._compute.to_input(torch.from_numpy(self._inputs)).to(self._compute.dtype)
            predictions = self.network(inputs)[: len(images)]
            s = self._settings
            likely = likely_rows(predictions, s.confidence)
        return [
            box.to_image(select_people(rows, s.confidence, s.nms_iou, s.max_boxes))
            for box, rows in zip(boxes, likely, strict=True)
        ]
