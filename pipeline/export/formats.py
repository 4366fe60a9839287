"""Files of exported networks, with metadata inside."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from pipeline.errors import UserError

Files = Mapping[str, bytes]


def onnx_files(name: str, data: bytes, metadata: Mapping[str, str]) -> Files:
    """NAME.onnx."""
    return {f"{name}.onnx": _with_metadata(data, metadata)}


def openvino_files(name: str, data: bytes, metadata: Mapping[str, str]) -> Files:
    """NAME.xml and NAME.bin, converted from an ONNX file.

    Raises:
        UserError: OpenVINO is not installed, or does not support an operation of the network.
    """
    try:
        import openvino
    except ImportError:
        raise UserError(
            "--format openvino needs the package openvino; run it as uv run --extra openvino jobs/export.py"
        ) from None
    if any(node.op_type == "DeformConv" for node in onnx.load_from_string(data).graph.node):
        raise UserError("OpenVINO does not support the deformable convolutions of this network; use --format onnx")
    model = openvino.Core().read_model(_with_metadata(data, metadata))
    with tempfile.TemporaryDirectory(prefix="posemill-") as folder:
        path = Path(folder) / f"{name}.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return {file.name: file.read_bytes() for file in (path, path.with_suffix(".bin"))}


def torchscript_files(name: str, module: nn.Module, size: tuple[int, int], metadata: Mapping[str, str]) -> Files:
    """NAME.torchscript, in float32, with folded BatchNorm.

    Args:
        size: height and width of the input, pixels.
    """
    folded = fuse(copy.deepcopy(module).eval()).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is deprecated, but still read by many programs
        traced = torch.jit.trace(folded, torch.zeros(2, 3, *size))
        with tempfile.TemporaryDirectory(prefix="posemill-") as folder:
            path = Path(folder) / f"{name}.torchscript"
            torch.jit.save(traced, str(path), _extra_files={"metadata.json": json.dumps(dict(metadata))})
            return {path.name: path.read_bytes()}


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    model = onnx.load_from_string(data)
    onnx.helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()
