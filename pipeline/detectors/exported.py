"""Detectors of the YOLO family that come as one exported file: ONNX by onnxruntime, TorchScript by torch.

Ge et al., YOLOX: Exceeding YOLO Series in 2021; the outputs of YOLOv5 and YOLOv8 exports are told apart by their shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.cells import cell_grid
from pipeline.detectors.letterbox import YOLO, YOLOX, Letterbox, LetterboxStyle, letterbox
from pipeline.detectors.selection import select_people
from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings
from pipeline.weights.catalogue import confirm, local_file

_STRIDES = (8, 16, 32)
_USUAL_SIDE = 640
_CUDA = "CUDAExecutionProvider"


Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OutputFormat:
    """What an exported network of a family takes and gives.

    Attributes:
        style: how images lie in its input.
        to_input: (B, 3, H, W) RGB in 0..255 to what it takes.
        rows: from its output for a grey image, and (H, W), how any output becomes (B, N, 5 + C): cx cy w h in network
            pixels, objectness, class probabilities. Raises ValueError where the output is another family's.
    """

    style: LetterboxStyle
    to_input: Callable[[Tensor], Tensor]
    rows: Callable[[Tensor, tuple[int, int]], Rows]


def yolox_rows(output: Tensor, size: tuple[int, int]) -> Rows:
    """YOLOX gives (B, N, 5 + C): centres count from their cell, sizes are logarithms, both in strides.

    An export that decodes inside is told by its centres, which lie all over the input; it is taken as it is.
    """
    _expect(output, size, "YOLOX", output.ndim == 3 and output.shape[1] == _cells(size) and output.shape[2] > 5)
    if output[..., :2].abs().max() > max(size) / 4:
        return lambda decoded: decoded
    cells = yolox_cells(size).to(output)
    stride = cells[:, 2:]
    corner = cells[:, :2] - stride / 2

    def decode(raw: Tensor) -> Tensor:
        return torch.cat([raw[..., :2] * stride + corner, raw[..., 2:4].exp() * stride, raw[..., 4:]], dim=-1)

    return decode


def yolox_cells(size: tuple[int, int]) -> Tensor:
    """(N, 3) centre x, y and stride of the cell of each YOLOX row, in pixels of an input of this height and width."""
    return torch.cat([cell_grid(*size, stride) for stride in _STRIDES])


def yolo_rows(output: Tensor, size: tuple[int, int]) -> Rows:
    """YOLOv5 gives (B, N, 5 + C), three rows a cell, as they are needed; YOLOv8 (B, 4 + C, N), one a cell.

    YOLOv8 has no objectness: that of a row is its best class, and what remains of each class is its share of it.
    """
    cells = _cells(size)
    if output.ndim == 3 and output.shape[1] == 3 * cells and output.shape[2] > 5:
        return lambda rows: rows
    _expect(output, size, "YOLOv5 or YOLOv8", output.ndim == 3 and output.shape[2] == cells and output.shape[1] > 4)

    def turn(columns: Tensor) -> Tensor:
        rows = columns.transpose(1, 2)
        best = rows[..., 4:].amax(dim=-1, keepdim=True)
        return torch.cat([rows[..., :4], best, rows[..., 4:] / best.clamp(min=1e-12)], dim=-1)

    return turn


def _cells(size: tuple[int, int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)


def _expect(output: Tensor, size: tuple[int, int], family: str, fits: bool) -> None:
    if not fits:
        raise UserError(
            f"its output {list(output.shape)} is not {family}'s for an input of {size[0]}x{size[1]}, which has "
            f"{_cells(size)} cells: another family, another input size, or an export with NMS inside"
        )


OUTPUT_FORMATS: dict[str, OutputFormat] = {
    "yolox": OutputFormat(YOLOX, lambda rgb: rgb.flip(1), yolox_rows),
    "yolo": OutputFormat(YOLO, lambda rgb: rgb / 255, yolo_rows),
}


class ExportedDetector:
    """Person boxes by an exported network, in batches of one fixed shape and float32.

    Attributes:
        batch: images per call.
        size: height and width of its input.
    """

    def __init__(self, runner: _Onnx | _TorchScript, form: OutputFormat, settings: DetectorSettings) -> None:
        """Try the network on a grey image.

        Raises:
            UserError: it cannot run on such an input, or gives another family's output.
        """
        self.batch = settings.batch
        self._settings = settings
        self._runner = runner
        self._form = form
        side = settings.input_size or _USUAL_SIDE
        self.size = runner.size or (side, side)
        self._inputs = np.full((settings.batch, *self.size, 3), form.style.pad_value, np.uint8)
        try:
            self._rows = form.rows(self._output(1), self.size)
        except Exception as error:  # what a runner raises is its own affair
            raise UserError(f"{settings.weights} as detector.name {settings.name}: {error}") from None

    @classmethod
    def from_settings(cls, settings: DetectorSettings, compute: Compute) -> ExportedDetector:
        """Load the file that the settings name.

        Raises:
            UserError: no file is named, or it is neither ONNX nor TorchScript.
        """
        if settings.weights is None:
            raise UserError(f"detector.weights is none; a {settings.name} detector needs its .onnx or TorchScript file")
        path = local_file(settings.weights)
        runner = _Onnx(path, compute) if path.suffix.lower() == ".onnx" else _TorchScript(path, compute)
        if runner.size and settings.input_size and runner.size != (settings.input_size, settings.input_size):
            height, width = runner.size
            other = f"make it {height}" if height == width else "leave it out"
            raise UserError(
                f"detector.input_size is {settings.input_size}, but {settings.weights} was exported for "
                f"{height}x{width}; {other}"
            )
        detector = cls(runner, OUTPUT_FORMATS[settings.name], settings)
        confirm(settings.weights, path, settings.name)
        return detector

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        boxes, rows = self.rows(images)
        s = self._settings
        return [
            box.to_image(select_people(row, s.confidence, s.nms_iou, s.max_boxes, objectness_alone=False))
            for box, row in zip(boxes, rows, strict=True)
        ]

    def rows(self, images: Sequence[np.ndarray]) -> tuple[list[Letterbox], Tensor]:
        """How up to `batch` images (H, W, 3) uint8 RGB lie in the input, and what is found in each, see `OutputFormat.rows`."""
        # The batch always has its full shape, so that an image's result doesn't depend on its neighbours.
        style = self._form.style
        boxes = [letterbox(image, out, style) for image, out in zip(images, self._inputs, strict=False)]
        return boxes, self._rows(self._output(len(images)))

    def _output(self, count: int) -> Tensor:
        """Of the first `count` inputs; the others are run too where the network takes a whole batch."""
        with torch.inference_mode():
            rgb = torch.from_numpy(self._inputs).permute(0, 3, 1, 2).float()
            return self._runner(self._form.to_input(rgb).contiguous(), count)[:count]


class _Onnx:
    """An ONNX file; `size` is the height and width that it was exported for, None where it takes any."""

    def __init__(self, path: Path, compute: Compute) -> None:
        # Imported here: most runs have no use for it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers: list[Any] = ["CPUExecutionProvider"]
        on_gpu = compute.device.type == "cuda"
        if on_gpu:
            if _CUDA not in onnxruntime.get_available_providers():
                raise UserError(
                    f"{path}: the installed onnxruntime would run it on the CPU, and compute.device is "
                    f"{compute.device}: install onnxruntime-gpu in its place, or set compute.device to cpu"
                )
            # float32 is float32, as in torch; a process that sees several GPUs has one of them.
            providers.insert(0, (_CUDA, {"device_id": torch.cuda.current_device(), "use_tf32": 0}))
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers)
        except Exception as error:  # onnxruntime's own classes share no base
            raise UserError(f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0]})") from None
        if on_gpu and _CUDA not in self._session.get_providers():
            raise OSError(
                "onnxruntime cannot use CUDA on this machine, and would compute on the CPU: what it printed above "
                "names the library that it misses; set compute.device to cpu to do without"
            )
        self._session.disable_fallback()  # a call that fails on the GPU is an error, no reason to go on without it
        (source,) = self._session.get_inputs()
        batch, _, height, width = source.shape
        self._name = source.name
        self._batch = batch if isinstance(batch, int) else None
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def __call__(self, inputs: Tensor, count: int) -> Tensor:
        step = self._batch or len(inputs)
        # A file that is exported for one batch size gets its own; the last one is filled up.
        filled = torch.cat([inputs, inputs[:1].expand(-len(inputs) % step, -1, -1, -1)]).numpy()
        chunks = [self._session.run(None, {self._name: filled[i : i + step]})[0] for i in range(0, count, step)]
        return torch.from_numpy(np.concatenate(chunks))


class _TorchScript:
    """A TorchScript archive; it doesn't tell which size it was exported for."""

    size = None

    def __init__(self, path: Path, compute: Compute) -> None:
        self._device = compute.device
        try:
            self._network = torch.jit.load(path, map_location=compute.device).eval()
        except RuntimeError as error:
            raise UserError(f"{path}: neither .onnx nor TorchScript ({str(error).splitlines()[0]})") from None

    def __call__(self, inputs: Tensor, count: int) -> Tensor:
        output = self._network(inputs.to(self._device))
        return (output[0] if isinstance(output, tuple | list) else output).float().cpu()
