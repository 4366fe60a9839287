"""Detectors of the YOLO family, and MoveNet, in exported files, ONNX or TorchScript.

Ge et al., YOLOX: Exceeding YOLO Series in 2021. The outputs of YOLOv5 and YOLOv8 are distinguished by shape. Pose and
segmentation networks have boxes, too, which are used.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.coco.categories import PERSON
from pipeline.detectors.cells import cell_grid
from pipeline.detectors.letterbox import MOVENET, YOLO, YOLOX, Letterbox, LetterboxBatch, LetterboxStyle
from pipeline.detectors.selection import COCO_CLASSES, select_people
from pipeline.errors import UserError, first_line
from pipeline.people import Boxes
from pipeline.runtime.device import Compute, Image
from pipeline.runtime.network import Network, load_exported, trial_output
from pipeline.settings.tree import DetectorSettings, detector_batch
from pipeline.weights.catalogue import confirm, local_file

_STRIDES = (8, 16, 32)
_TOLERANCE = 1e-3  # of probabilities in half precision

# An output of the network to (B, N, 5 + C + R): cx cy w h in network pixels, objectness, C class probabilities, and R
# other columns, such as keypoints or mask coefficients.
Decoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OutputFormat:
    """The input and output conventions of a family of exported networks.

    Attributes:
        style: how images are placed in the input.
        to_input: (B, 3, H, W) RGB in 0..255 to the network's input.
        decoder: chooses the decoder by the output for a grey image and the input size (H, W). Raises UserError if the
            output is not of this family.
        usual_side: height and width of the input if neither the file nor the settings state it, pixels.
        people_only: whether the only class is person.
    """

    style: LetterboxStyle
    to_input: Callable[[Tensor], Tensor]
    decoder: Callable[[Tensor, tuple[int, int]], Decoder]
    usual_side: int = 640
    people_only: bool = False


def yolox_decoder(output: Tensor, size: tuple[int, int]) -> Decoder:
    """The decoder of YOLOX: (B, N, 5 + C), centres relative to the cell and logarithms of sizes, both in strides.

    An export that includes the decoding is recognised by centres that are spread over the whole input.
    """
    _check(output, size, "YOLOX", output.ndim == 3 and output.shape[1] == _num_cells(size) and output.shape[2] > 5)
    if output[..., :2].abs().max() > max(size) / 4:
        return lambda decoded: decoded
    cells = yolox_cells(size).to(output)
    stride = cells[:, 2:]
    corner = cells[:, :2] - stride / 2

    def decode(raw: Tensor) -> Tensor:
        return torch.cat([raw[..., :2] * stride + corner, raw[..., 2:4].exp() * stride, raw[..., 4:]], dim=-1)

    return decode


def yolox_cells(size: tuple[int, int]) -> Tensor:
    """(N, 3) centre x, centre y and stride of the cell of each YOLOX row, in pixels of an input of this size."""
    return torch.cat([cell_grid(*size, stride) for stride in _STRIDES])


def yolo_decoder(output: Tensor, size: tuple[int, int]) -> Decoder:
    """The decoder of YOLOv5, (B, N, 5 + C + R) with three rows per cell, or YOLOv8, (B, 4 + C + R, N) with one.

    YOLOv8 has no objectness: it is set to 1.
    """
    cells = _num_cells(size)
    if output.ndim == 3 and output.shape[1] == 3 * cells and output.shape[2] > 5:
        return lambda rows: rows
    _check(output, size, "YOLOv5 or YOLOv8", output.ndim == 3 and output.shape[2] == cells and output.shape[1] > 4)

    def transpose(columns: Tensor) -> Tensor:
        rows = columns.transpose(1, 2)
        return torch.cat([rows[..., :4], torch.ones_like(rows[..., :1]), rows[..., 4:]], dim=-1)

    return transpose


def movenet_decoder(output: Tensor, size: tuple[int, int]) -> Decoder:
    """The decoder of MoveNet: several people, (B, 6, 3 K + 5), or one, (B, 1, K, 3).

    Joints are y x score and boxes y1 x1 y2 x2 score, relative to the input. A network for one person has no box: it is
    the rectangle around the joints, and its score is their mean.
    """
    one = output.ndim == 4 and output.shape[1] == 1 and output.shape[3] == 3
    if not one and not (output.ndim == 3 and output.shape[2] > 5 and output.shape[2] % 3 == 2):
        raise UserError(f"its output {list(output.shape)} is not that of MoveNet, (B, N, 56) or (B, 1, 17, 3)")
    height, width = size

    def decode(raw: Tensor) -> Tensor:
        joints = raw if one else raw[..., :-5].unflatten(2, (-1, 3))
        if one:
            corners = torch.cat([joints[..., :2].amin(dim=2), joints[..., :2].amax(dim=2)], dim=-1)
            score = joints[..., 2].mean(dim=2, keepdim=True)
        else:
            corners, score = raw[..., -5:-1], raw[..., -1:]
        y1, x1, y2, x2 = (corners * torch.tensor([height, width, height, width])).split(1, dim=-1)
        box = torch.cat([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, score, torch.ones_like(score)], dim=-1)
        places = joints[..., [1, 0, 2]] * torch.tensor([width, height, 1])
        return torch.cat([box, places.flatten(2)], dim=-1)

    return decode


def _num_cells(size: tuple[int, int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)


def _check(output: Tensor, size: tuple[int, int], family: str, fits: bool) -> None:
    if not fits:
        raise UserError(
            f"its output {list(output.shape)} is not that of {family} for an input of {size[0]}x{size[1]}, which has "
            f"{_num_cells(size)} cells: another family, another input size, or an export that includes NMS"
        )


_YOLO = OutputFormat(YOLO, lambda rgb: rgb / 255, yolo_decoder)
OUTPUT_FORMATS: dict[str, OutputFormat] = {
    "yolox": OutputFormat(YOLOX, lambda rgb: rgb.flip(1), yolox_decoder),
    "yolo": _YOLO,
    "yolo_pose": _YOLO,
    "movenet": OutputFormat(MOVENET, lambda rgb: rgb, movenet_decoder, usual_side=256, people_only=True),
}


@dataclass(frozen=True)
class Classes:
    """The class columns of decoded rows: their number, and the index of person."""

    count: int
    person: int


def find_classes(columns: Tensor, metadata: Mapping[str, str], person_class: int | None) -> Classes:
    """The classes of a network, by the names in its file, else by its output for one image.

    Args:
        columns: (N, C + R) decoded columns after the objectness.
        metadata: of the file. Exports of Ultralytics state `names` and `task`.
        person_class: the setting; None to use the class named person, else the only class, else COCO's.

    Raises:
        UserError: the network has no person class, or it is unknown; or its boxes are rotated.
    """
    names = _class_names(metadata.get("names", ""))
    total = columns.shape[1]
    if names:
        count = len(names)
    else:
        # Probabilities lie in 0..1; coordinates of keypoints, mask coefficients and angles do not.
        probable = ((columns >= -_TOLERANCE) & (columns <= 1 + _TOLERANCE)).all(dim=0).tolist()
        count = probable.index(False) if False in probable else total
    task = metadata.get("task", "")
    if count == 0 or count > total:
        raise UserError(f"its output has {total} columns after the box, which are not probabilities of {count} classes")
    if task == "obb" or (not task and total - count == 1):
        raise UserError("its boxes are rotated; export a detection, pose or segmentation network")
    if person_class is not None:
        if person_class >= count:
            raise UserError(f"--detector.person_class is {person_class}, but it has {count} classes, counted from 0")
        return Classes(count, person_class)
    persons = [number for number, name in names.items() if name.lower() == PERSON]
    if len(persons) == 1:
        return Classes(count, persons[0])
    if count == 1:
        return Classes(1, 0)
    if names:
        listed = ", ".join(list(names.values())[:10])
        raise UserError(
            f"exactly one class must be named person, but its classes are {listed}; set --detector.person_class"
        )
    if count != COCO_CLASSES:
        raise UserError(
            f"cannot tell which of its {count} classes is person, because it does not name them; set "
            "--detector.person_class"
        )
    return Classes(count, 0)


def _class_names(text: str) -> dict[int, str]:
    """The `names` of Ultralytics' metadata: a dict or list in Python's notation; empty if there are none."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {}
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    return {int(number): str(name) for number, name in names.items()} if isinstance(names, dict) else {}


class ExportedDetector:
    """Person boxes from an exported network, in batches of one fixed shape, in float32.

    Attributes:
        batch: images per call.
        size: height and width of the input, pixels.
        classes: of the network.
    """

    def __init__(
        self, network: Network, output_format: OutputFormat, settings: DetectorSettings, compute: Compute
    ) -> None:
        """Run the network once on a grey image, to choose the decoder.

        Raises:
            UserError: the network cannot run on this input size, or its output is not of this family.
        """
        self.batch = detector_batch(settings, compute.device.type)
        self._settings = settings
        self._network = network
        self._format = output_format
        side = settings.input_size or output_format.usual_side
        self.size = network.input_size or (side, side)
        self._inputs = LetterboxBatch(self.batch, self.size, output_format.style, compute)
        try:
            output = trial_output(network, self._network_input(self._inputs.fill([])[1], 1))
            first = output[:1].float().cpu()
            self._decode = output_format.decoder(first, self.size)
            columns = self._decode(first)[0, :, 5:]
            people_only = output_format.people_only
            self.classes = (
                Classes(1, 0) if people_only else find_classes(columns, network.metadata, settings.person_class)
            )
        except UserError as error:
            raise UserError(f"--detector.weights {settings.weights} as {settings.name}: {error}") from None

    @classmethod
    def from_settings(cls, settings: DetectorSettings, compute: Compute) -> ExportedDetector:
        """Load the file that the settings name.

        Raises:
            UserError: no file is named, it is neither ONNX nor TorchScript, or has another input size.
        """
        if settings.weights is None:
            raise UserError(f"--detector.name {settings.name} needs --detector.weights: an .onnx or TorchScript file")
        path = local_file(settings.weights)
        network = load_exported(path, compute)
        if network.input_size and settings.input_size and network.input_size != (settings.input_size,) * 2:
            detector = cls._resized(network.input_size, path, settings, compute)
        else:
            detector = cls(network, OUTPUT_FORMATS[settings.name], settings, compute)
        confirm(settings.weights, path, settings.name)
        return detector

    @classmethod
    def _resized(
        cls, exported: tuple[int, int], path: Path, settings: DetectorSettings, compute: Compute
    ) -> ExportedDetector:
        """From a file that was exported for another input size: possible if its decoding is not part of it."""
        side = settings.input_size
        assert side is not None
        try:
            return cls(load_exported(path, compute, (side, side)), OUTPUT_FORMATS[settings.name], settings, compute)
        except UserError as error:
            height, width = exported
            other = f"set it to {height}" if height == width else "leave it out"
            raise UserError(
                f"--detector.input_size is {side}, but {settings.weights} was exported for {height}x{width} and does "
                f"not run at {side}x{side}; {other} ({first_line(error)})"
            ) from None

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        letterboxes, rows = self.predict(images)
        return [box.to_image(self.select(row)) for box, row in zip(letterboxes, rows, strict=True)]

    def select(self, rows: Tensor) -> Boxes:
        """The people of one image, in network pixels, from its (N, 5 + C + R) rows."""
        return self._select(rows, None)

    def _select(self, rows: Tensor, poses: Tensor | None) -> Boxes:
        s = self._settings
        return select_people(
            rows[:, : 5 + self.classes.count],
            s.confidence,
            s.nms_iou,
            s.max_boxes,
            self.classes.person,
            objectness_alone=False,
            poses=poses,
            least_confidence=s.least_confidence,
        )

    def predict(self, images: Sequence[Image]) -> tuple[list[Letterbox], Tensor]:
        """The placement of at most `batch` images (H, W, 3) uint8 RGB, and (B, N, 5 + C + R) rows, see `Decoder`."""
        with torch.inference_mode():
            letterboxes, pixels = self._inputs.fill(images)
            output = self._network(self._network_input(pixels, len(images)))[: len(images)].float().cpu()
        return letterboxes, self._decode(output)

    def _network_input(self, pixels: Tensor, count: int) -> Tensor:
        """The input for the first `count` images."""
        used = pixels[:count] if self._network.batch_size else pixels  # a fixed batch is split and padded anyway
        return self._format.to_input(used).contiguous()
