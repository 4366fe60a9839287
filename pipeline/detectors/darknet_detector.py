"""Person boxes from a Darknet network: letterbox, network, selection, conversion to image pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline import storage
from pipeline.detectors import yolov3_spp
from pipeline.detectors.batch_selection import select_batch
from pipeline.detectors.darknet import Darknet, DarknetError
from pipeline.detectors.letterbox import DARKNET, STRETCHED, LetterboxBatch
from pipeline.detectors.selection import COCO_CLASSES, likely_rows, select_people
from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.runtime.device import Compute, Image
from pipeline.runtime.network import EXPORTED_SUFFIXES, Network, load_exported, prepare_network
from pipeline.settings.tree import DetectorSettings, detector_batch
from pipeline.weights.catalogue import confirm, local_file
from pipeline.weights.checkpoints import load_weights
from pipeline.weights.metadata import read_safetensors_metadata


def load_darknet(cfg: str | None, weights: Path) -> Darknet:
    """A trained network.

    Args:
        cfg: URI of the description; by default the one inside a .safetensors file, and that of YOLOv3-SPP for .weights.
        weights: a .weights file of Darknet, or .safetensors as training writes it.

    Raises:
        DarknetError: the files cannot be used or do not belong together.
    """
    is_safetensors = weights.suffix == ".safetensors"
    description, name = yolov3_spp.describe(), "YOLOv3-SPP"
    if cfg is not None:
        description, name = storage.read_bytes(cfg).decode(errors="replace"), cfg
    elif is_safetensors:
        description, name = read_safetensors_metadata(weights).get("cfg", ""), "the description inside the file"
    hint = "" if cfg else "; set --detector.cfg to its description"
    try:
        network = Darknet(description)
        if is_safetensors:
            load_weights(network, str(weights), name)
        else:
            network.load_darknet_weights(weights.read_bytes())
    except DarknetError as error:
        raise DarknetError(f"{name} with {weights}: {error}{hint}") from None
    except UserError as error:
        raise DarknetError(f"{error}{hint}") from None
    return network


def _person_class(classes: int, setting: int | None) -> int:
    """Index of the class person: the setting, else the first of one class or of COCO's 80.

    Raises:
        DarknetError: it is not known, or out of range.
    """
    if setting is not None and setting >= classes:
        raise DarknetError(
            f"--detector.person_class is {setting}, but the network has {classes} classes, counted from 0"
        )
    if setting is None and classes not in (1, COCO_CLASSES):
        raise DarknetError(
            f"the network has {classes} classes, and its description does not name them; set --detector.person_class"
        )
    return setting or 0


class DarknetFacts(NamedTuple):
    """What the use of a Darknet network depends on.

    Attributes:
        size: height and width of the input, pixels.
        classes: number of classes.
        letterbox: whether images keep their aspect ratio in the input.
    """

    size: tuple[int, int]
    classes: int
    letterbox: bool

    @classmethod
    def of(cls, network: Darknet, side: int | None) -> DarknetFacts:
        """Of a network with a square input of this side; by default with the size of its description.

        Raises:
            DarknetError: the network cannot have an input of this size.
        """
        size = network.size if side is None else (side, side)
        network.check_size(*size)
        return cls(size, network.classes, network.letterbox is not False)

    @classmethod
    def stated(cls, metadata: Mapping[str, str]) -> DarknetFacts | None:
        """From the metadata of an exported file, as `metadata` writes it; None if it does not state them."""
        sides = re.fullmatch(r"(\d+)x(\d+)", metadata.get("input_size", ""))
        if metadata.get("network") != "darknet" or not sides or not metadata.get("classes", "").isdecimal():
            return None
        return cls((int(sides[1]), int(sides[2])), int(metadata["classes"]), metadata.get("letterbox") != "false")

    def metadata(self) -> dict[str, str]:
        """For an exported file."""
        return {
            "network": "darknet",
            "input_size": "x".join(map(str, self.size)),
            "classes": str(self.classes),
            "letterbox": str(self.letterbox).lower(),
        }


class DarknetDetector:
    """Person boxes from a Darknet network, in batches of one fixed shape.

    Attributes:
        batch: images per call.
        network: (batch, 3, H, W) RGB in 0..1 to predictions, see `Darknet`.
    """

    def __init__(self, network: Network, facts: DarknetFacts, settings: DetectorSettings, compute: Compute) -> None:
        self.batch = detector_batch(settings, compute.device.type)
        self._settings = settings
        self._person = _person_class(facts.classes, settings.person_class)
        wanted = facts.letterbox if settings.letterbox is None else settings.letterbox
        self.network = network
        self._inputs = LetterboxBatch(self.batch, facts.size, STRETCHED if wanted is False else DARKNET, compute)

    @classmethod
    def of(cls, network: Darknet, settings: DetectorSettings, compute: Compute) -> DarknetDetector:
        """The detector of a network with its weights."""
        facts = DarknetFacts.of(network, settings.input_size)
        return cls(prepare_network(network, facts.size, compute), facts, settings, compute)

    @classmethod
    def from_settings(cls, settings: DetectorSettings, compute: Compute) -> DarknetDetector:
        """Load the network that the settings name: weights, or a file that jobs/export.py wrote.

        Raises:
            DarknetError: no weights are named, or the files do not belong together.
        """
        if settings.weights is None:
            raise DarknetError("--detector.name darknet needs --detector.weights")
        weights = local_file(settings.weights)
        if weights.suffix.lower() in EXPORTED_SUFFIXES:
            return cls._exported(settings, weights, compute)
        network = load_darknet(settings.cfg, weights)
        confirm(settings.weights, weights, "darknet")
        return cls.of(network, settings, compute)

    @classmethod
    def _exported(cls, settings: DetectorSettings, path: Path, compute: Compute) -> DarknetDetector:
        network = load_exported(path, compute)
        facts = DarknetFacts.stated(network.metadata)
        if facts is None:
            raise DarknetError(
                f"{settings.weights} is not a Darknet network that jobs/export.py wrote; for the export of another "
                "program set --detector.name yolo or yolox"
            )
        if settings.cfg is not None or settings.input_size not in (None, max(facts.size)):
            raise DarknetError(
                f"{settings.weights} was exported for {facts.size[0]}x{facts.size[1]} with its description; leave out "
                "--detector.cfg and --detector.input_size"
            )
        return cls(network, facts, settings, compute)

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        with torch.inference_mode():
            letterboxes, pixels = self._inputs.fill(images)
            predictions = self.network(pixels / 255)[: len(images)]
            found = self._select(predictions)
        return [placed.to_image(boxes) for placed, boxes in zip(letterboxes, found, strict=True)]

    def _select(self, predictions: Tensor) -> list[Boxes]:
        s, person, least = self._settings, self._person, self._settings.least_confidence
        if predictions.device.type != "cpu":
            return select_batch(predictions, s.confidence, s.nms_iou, s.max_boxes, person, least)
        return [
            select_people(rows, s.confidence, s.nms_iou, s.max_boxes, person, least_confidence=least)
            for rows in likely_rows(predictions, least)
        ]
