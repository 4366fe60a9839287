"""Networks in fewer bits. What decodes heatmaps and boxes, and the convolutions before it, stay in float32."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.export.graph import behind_last_convolutions, padding, stem
from pipeline.runtime.device import Compute

_CALIBRATION_BATCH = 4


class Half(nn.Module):
    """A network in float16 with float32 input and output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.network = Compute(torch.device("cpu"), torch.float16).prepare(copy.deepcopy(module))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs.half()).float()


def to_int8(data: bytes, inputs: np.ndarray) -> bytes:
    """The file with static quantisation: uint8 activations, and int8 weights with a scale for each output channel.

    Weights have 7 bits: with 8, processors without VNNI overflow silently, and the file may run on any. The first
    convolutions stay in float32, too: they are a small part of the work, and most of the loss of accuracy. So does
    padding: the exporter pads before a max pooling with minus infinity, from which follows an infinite scale.

    Args:
        data: float32 file with one input.
        inputs: (N, 3, H, W) float32, from which the ranges of activations are measured.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load_from_string(data).graph.input[0].name
    batches = iter([inputs[i : i + _CALIBRATION_BATCH] for i in range(0, len(inputs), _CALIBRATION_BATCH)])

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory(prefix="posemill-") as folder, _quiet():
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        source = Path(folder) / "source.onnx"
        source.write_bytes(data)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        optimised = onnx.load(prepared)
        quantize_static(
            prepared,
            quantised,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=[*stem(optimised), *padding(optimised), *behind_last_convolutions(optimised)],
        )
        _check_scales(onnx.load(quantised))
        return quantised.read_bytes()


def _check_scales(model: onnx.ModelProto) -> None:
    """
    Raises:
        UserError: a range is infinite: everything behind it would be 0, without an error of the runtime.
    """
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scale") and not np.isfinite(onnx.numpy_helper.to_array(tensor)).all():
            raise UserError(f"int8 does not suit the network: {tensor.name.removesuffix('_scale')} has no finite range")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages of onnxruntime's quantisation."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
