"""TorchScript archives as networks. They run in float32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import UserError, first_line
from pipeline.runtime.device import Compute

TORCHSCRIPT_SUFFIXES = (".torchscript",)
_METADATA_FILES = ("metadata.json", "config.txt")  # extra files in the archive: JSON objects; the latter by Ultralytics


class TorchScriptNetwork:
    """A TorchScript archive; see `Network`. The archive does not state an input size."""

    input_size: tuple[int, int] | None = None
    batch_size: int | None = None
    runtime = "torch"

    def __init__(self, path: Path, compute: Compute) -> None:
        """
        Raises:
            UserError: the file is not a TorchScript archive.
        """
        self._device = compute.device
        self._computing = compute.computing
        files = dict.fromkeys(_METADATA_FILES, "")
        try:
            self._module = torch.jit.load(path, map_location=compute.device, _extra_files=files).eval()
        except RuntimeError as error:
            raise UserError(f"{path}: neither .onnx nor TorchScript ({first_line(error)})") from None
        self.metadata: Mapping[str, str] = {
            key: value for name in _METADATA_FILES for key, value in _parse(files[name]).items()
        }

    def __call__(self, inputs: Tensor) -> Tensor:
        with self._computing():
            output = self._module(inputs.to(self._device, torch.float32))
        if isinstance(output, tuple | list):
            output = output[0]
        if not isinstance(output, Tensor):
            raise TypeError(f"the network returns {type(output).__name__}; expected a tensor or a tuple of tensors")
        return output


def _parse(text: str | bytes) -> Mapping[str, str]:
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        return {}  # a file of the same name with other content
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
