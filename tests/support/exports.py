"""Networks exported to ONNX and TorchScript files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn


def export_onnx(
    network: nn.Module,
    path: Path,
    size: tuple[int, int] = (64, 48),
    metadata: Mapping[str, str] | None = None,
    batch: int | None = None,
    any_size: bool = False,
) -> Path:
    """Write an ONNX file, for a batch of any size if `batch` is None."""
    dynamic = {} if batch else {0: "batch"}
    dynamic |= {2: "height", 3: "width"} if any_size else {}
    inputs = torch.zeros(batch or 1, 3, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The exporter that needs no further packages.
        torch.onnx.export(
            network.eval(), (inputs,), str(path), input_names=["x"], dynamic_axes={"x": dynamic}, dynamo=False
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def export_torchscript(
    network: nn.Module, path: Path, size: tuple[int, int] = (64, 48), metadata: Mapping[str, str] | None = None
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), torch.zeros(1, 3, *size), strict=False)
        files = {"metadata.json": json.dumps(dict(metadata))} if metadata is not None else {}
        torch.jit.save(traced, str(path), _extra_files=files)
    return path


def write_onnx_sum(path: Path, shapes: Sequence[Sequence[int | str]]) -> Path:
    """Write an ONNX file with inputs of these shapes, and their sum as output."""
    kind = onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info(f"x{i}", kind, shape) for i, shape in enumerate(shapes)]
    output = onnx.helper.make_tensor_value_info("y", kind, shapes[0])
    node = onnx.helper.make_node("Sum", [source.name for source in inputs], ["y"])
    graph = onnx.helper.make_graph([node], "sum", inputs, [output])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path
