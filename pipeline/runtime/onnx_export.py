"""PyTorch networks as ONNX files."""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from pipeline import storage
from pipeline.errors import UserError, first_line

_OPSET = 20
_OF_ALL_MODULES = frozenset(vars(nn.Module()))
_TRACED_BATCH = 2  # a batch of 1 would be taken as a constant


def to_onnx(module: nn.Module, size: tuple[int, int], output: str) -> bytes:
    """The file of a network with one input `images`, (batch, 3, H, W) float32, for any batch. BatchNorm is
    folded into the convolutions before it, except deformable ones.

    Args:
        module: with its weights; called with one tensor.
        size: height and width of the input, pixels.
        output: name of the output.

    Raises:
        UserError: the network has an operation that cannot be exported.
    """
    from torch.export import Dim  # imported here: it takes half a second, and most runs do not export

    # Folded here: the exporter would fold as well, in twice the time.
    folded = fuse(copy.deepcopy(module).eval()).requires_grad_(False)
    try:
        program = torch.onnx.export(
            folded,
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
    return program.model_proto.SerializeToString()


def cached_onnx(module: nn.Module, size: tuple[int, int]) -> Path:
    """The file of a network, exported once per machine: later calls with the same weights find it in the cache.

    Args:
        module, size: see `to_onnx`.

    Raises:
        UserError: the network has an operation that cannot be exported.
    """
    path = storage.cache_folder() / "onnx" / f"{_digest(module, size)}.onnx"
    if not path.exists():
        data = to_onnx(module, size, "output")
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(f".{os.getpid()}")
        try:
            written.write_bytes(data)
            os.replace(written, path)  # other workers see the whole file or none
        finally:
            written.unlink(missing_ok=True)
    return path


def _digest(module: nn.Module, size: tuple[int, int]) -> str:
    """Of everything that the exported file depends on: layers with their settings and code, weights, and versions."""
    digest = hashlib.sha256(f"{size} {[version(name) for name in ('torch', 'onnx', 'onnxscript')]}".encode())
    for name in sorted({__name__, *(type(layer).__module__ for layer in module.modules())}):
        if name.startswith("pipeline."):
            digest.update(inspect.getsource(sys.modules[name]).encode())
    for name, layer in module.named_modules():
        settings = {key: value for key, value in vars(layer).items() if key not in _OF_ALL_MODULES}
        digest.update(f"{name} {type(layer).__qualname__} {_plain(settings)}".encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name} {_plain(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _plain(value: Any) -> Any:
    """A value whose text names all of it; the text of a long tensor leaves out most."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return sorted((str(key), str(_plain(item))) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
