"""One interface for a network in any file format, for detectors and pose networks alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pipeline.runtime.device import Compute
from pipeline.runtime.onnx import ONNX_SUFFIXES, OnnxNetwork
from pipeline.runtime.torchscript import TORCHSCRIPT_SUFFIXES, TorchScriptNetwork

EXPORTED_SUFFIXES = (*ONNX_SUFFIXES, *TORCHSCRIPT_SUFFIXES)


class Network(Protocol):
    """A loaded network, ready to run. Call it inside `torch.inference_mode()`.

    Attributes:
        input_size: height and width that the file was exported for, pixels; None if it takes any.
        batch_size: batch that the file was exported for; None if it takes any. Other batches are split and padded.
        metadata: what the file states about itself.
    """

    input_size: tuple[int, int] | None
    batch_size: int | None
    metadata: Mapping[str, str]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, 3, H, W) float to the first output, (B, ...) of any float type and on any device."""
        ...


def load_exported(path: Path, compute: Compute) -> Network:
    """A network from an exported file: ONNX by its suffix, else TorchScript.

    Raises:
        UserError: the file is neither, or cannot run on the device.
    """
    if path.suffix.lower() in ONNX_SUFFIXES:
        return OnnxNetwork(path, compute)
    return TorchScriptNetwork(path, compute)
