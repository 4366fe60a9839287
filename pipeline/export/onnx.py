"""PyTorch networks as ONNX files. Needs the packages of the extra `export`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.export import Dim

from pipeline.errors import UserError, first_line

_OPSET = 20
_TRACED_BATCH = 2  # a batch of 1 would be taken as a constant


def to_onnx(module: nn.Module, size: tuple[int, int], output: str, metadata: Mapping[str, str]) -> bytes:
    """The file of a network with one input `images`, (batch, 3, H, W) float32, for any batch. BatchNorm is
    folded into the convolutions before it, except deformable ones.

    Args:
        module: with its weights; called with one tensor.
        size: height and width of the input, pixels.
        output: name of the output.
        metadata: stored in the file.

    Raises:
        UserError: the packages are missing, or the network has an operation that cannot be exported.
    """
    try:
        import onnxscript  # noqa: F401  # torch.onnx imports it, and raises an error of its own
    except ImportError:
        raise UserError("the export needs more packages; run it as uv run --extra export jobs/export.py") from None
    try:
        program = torch.onnx.export(
            module.eval(),
            (torch.zeros(_TRACED_BATCH, 3, *size),),
            input_names=["images"],
            output_names=[output],
            opset_version=_OPSET,
            dynamo=True,
            dynamic_shapes=({0: Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"the network cannot be exported to ONNX: {first_line(error)}") from None
    assert program is not None
    model = program.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()
