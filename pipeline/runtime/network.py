"""One interface for a network in any file format, for detectors and pose networks alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.runtime.device import Compute
from pipeline.runtime.onnx import ONNX_SUFFIXES, OnnxNetwork
from pipeline.runtime.onnx_export import cached_onnx
from pipeline.runtime.openvino import OPENVINO_SUFFIX, OpenVinoNetwork
from pipeline.runtime.torch import TorchNetwork
from pipeline.runtime.torchscript import TORCHSCRIPT_SUFFIXES, TorchScriptNetwork

EXPORTED_SUFFIXES = (*ONNX_SUFFIXES, *TORCHSCRIPT_SUFFIXES)


class Network(Protocol):
    """A loaded network, ready to run. Call it in `torch.inference_mode()`.

    Attributes:
        input_size: height and width that the file was exported for, pixels; None if any size, or an unknown one.
        batch_size: batch that the file was exported for; None if any. Other batches are split and padded.
        metadata: key-value pairs that are stored in the file.
        runtime: what runs it, a value of `compute.runtime`.
    """

    input_size: tuple[int, int] | None
    batch_size: int | None
    metadata: Mapping[str, str]
    runtime: str

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, 3, H, W) float, on any device, to the first output (B, ...), of any float type and on any device.

        The outputs `simcc_x` and `simcc_y` of an ONNX file are one output, (B, K, columns + rows).
        """
        ...


def prepare_network(
    module: nn.Module, size: tuple[int, int], compute: Compute, metadata: Mapping[str, str] | None = None
) -> Network:
    """A network of this package in the runtime of `compute`; for other runtimes than PyTorch it is exported once.

    Args:
        module: with its weights; it may be changed.
        size: height and width of its input, pixels.
        metadata: of the weights file.

    Raises:
        UserError: the network cannot be exported, or the runtime cannot run it.
    """
    if compute.own_runtime == "torch":
        return TorchNetwork(module, compute, metadata)
    network = load_exported(cached_onnx(module, size), compute)
    network.metadata = metadata or {}
    return network


def load_exported(path: Path, compute: Compute, size: tuple[int, int] | None = None) -> Network:
    """A network from an exported file: ONNX or OpenVINO by its suffix, else TorchScript.

    Args:
        size: height and width of the input, if the fixed ones of a file are to be changed, pixels.

    Raises:
        UserError: the file is none of these, or cannot run on the device or in the runtime, or not at this size.
    """
    if compute.mode in ("graph", "compile"):
        raise UserError(
            f"--compute.mode {compute.mode} is for networks in PyTorch, and {path} is exported; leave it out"
        )
    kind = path.suffix.lower()
    if kind in (*ONNX_SUFFIXES, OPENVINO_SUFFIX):
        if compute.runtime == "openvino" or kind == OPENVINO_SUFFIX:
            return OpenVinoNetwork(path, compute, size)
        if compute.runtime != "torch":
            return OnnxNetwork(path, compute, size)
    elif compute.runtime in ("auto", "torch"):
        return TorchScriptNetwork(path, compute)
    raise UserError(f"--compute.runtime {compute.runtime} cannot run {path}; leave it out")


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
