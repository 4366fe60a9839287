"""ONNX files, and files of OpenVINO, as networks that OpenVINO runs on a CPU. Needs the extra `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.runtime.device import Compute
from pipeline.runtime.onnx import chosen_outputs, joined

OPENVINO_SUFFIX = ".xml"  # the weights are in a .bin file beside it
_METADATA = "framework"  # where OpenVINO keeps the metadata of an ONNX file


class OpenVinoNetwork:
    """A file with one input, run in the precision of the file; see `Network`."""

    runtime = "openvino"

    def __init__(self, path: Path, compute: Compute, size: tuple[int, int] | None = None) -> None:
        """
        Args:
            size: height and width of the input, if the file's own are to be changed, pixels.

        Raises:
            UserError: OpenVINO is not installed, or cannot load the file, also with this size.
        """
        try:
            import openvino
        except ImportError:
            raise UserError(
                "--compute.runtime openvino needs the package openvino: uv sync --extra openvino, or pip install "
                '"posemill[openvino]"'
            ) from None
        self._computing = compute.computing
        core = openvino.Core()
        # By default OpenVINO computes in bf16 where the processor has it, the last convolutions, too.
        options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        try:
            model = core.read_model(path)
            if size is not None:
                model.reshape([*list(model.inputs[0].partial_shape)[:2], *size])
            self._compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot load it ({_reason(error)})") from None
        shape = model.inputs[0].partial_shape if len(model.inputs) == 1 else None
        if shape is None or shape.rank.is_dynamic or len(shape) != 4:
            raise UserError(f"{path}: expected one input (B, 3, H, W), not {len(model.inputs)} inputs")
        batch, _, height, width = (None if side.is_dynamic else side.get_length() for side in shape)
        named = {output.get_any_name(): output for output in self._compiled.outputs}
        self._outputs = [named[name] for name in chosen_outputs(list(named))]
        self.batch_size = batch
        self.input_size = (height, width) if height is not None and width is not None else None
        stated = model.get_rt_info()
        self.metadata: Mapping[str, str] = {
            key: value.astype(str) for key, value in (stated[_METADATA].items() if _METADATA in stated else ())
        }

    def __call__(self, inputs: Tensor) -> Tensor:
        step = self.batch_size or len(inputs)
        padded = torch.cat([inputs, inputs[:1].expand(-len(inputs) % step, -1, -1, -1)]).float().cpu().numpy()
        # A request of its own for each call: threads share the network.
        request = self._compiled.create_infer_request()
        outputs = []
        with self._computing():
            for start in range(0, len(padded), step):
                found = request.infer({0: padded[start : start + step]})
                outputs.append(joined([found[output].copy() for output in self._outputs]))
        return torch.from_numpy(np.concatenate(outputs)[: len(inputs)])


def _reason(error: RuntimeError) -> str:
    """The line that names the cause; OpenVINO puts places in its sources before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("Exception from", "Check '"))), "unknown cause")[:300]
