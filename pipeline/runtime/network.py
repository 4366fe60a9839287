"""One interface for a network in any file format, for detectors and pose networks alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.runtime.device import Compute
from pipeline.runtime.onnx import ONNX_SUFFIXES, OnnxNetwork
from pipeline.runtime.torchscript import TORCHSCRIPT_SUFFIXES, TorchScriptNetwork

EXPORTED_SUFFIXES = (*ONNX_SUFFIXES, *TORCHSCRIPT_SUFFIXES)


class Network(Protocol):
    """A loaded network, ready to run. Call it in `torch.inference_mode()`.

    Attributes:
        input_size: height and width that the file was exported for, pixels; None if any size, or an unknown one.
        batch_size: batch that the file was exported for; None if any. Other batches are split and padded.
        metadata: key-value pairs that are stored in the file.
    """

    input_size: tuple[int, int] | None
    batch_size: int | None
    metadata: Mapping[str, str]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, 3, H, W) float, on any device, to the first output (B, ...), of any float type and on any device."""
        ...


def load_exported(path: Path, compute: Compute) -> Network:
    """A network from an exported file: ONNX by its suffix, else TorchScript.

    Raises:
        UserError: the file is neither, or cannot run on the device.
    """
    if path.suffix.lower() in ONNX_SUFFIXES:
        return OnnxNetwork(path, compute)
    return TorchScriptNetwork(path, compute)


def trial_output(network: Network, inputs: Tensor) -> Tensor:
    """The output for a first input, to check a file before it is used.

    Raises:
        UserError: the network cannot run on the input; the message is one line.
    """
    try:
        with torch.inference_mode():
            return network(inputs)
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # the machine fails, not the file
    except Exception as error:  # runtimes raise exceptions of their own
        text = str(error).strip() or type(error).__name__
        # TorchScript puts the reason on the last line, after its tracebacks; ONNX Runtime spreads it over all lines.
        reason = text.splitlines()[-1] if "Traceback of TorchScript" in text else " ".join(text.split())
        raise UserError(f"cannot run on an input {list(inputs.shape)}: {reason[:300]}") from None
