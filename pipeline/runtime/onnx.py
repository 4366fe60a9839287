"""ONNX files as networks, run by ONNX Runtime or, through it, by TensorRT, in the precision of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import UserError, first_line
from pipeline.runtime.device import Compute

ONNX_SUFFIXES = (".onnx",)
_COLOURS = 3
_INPUT_TYPES: dict[str, Any] = {
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
}
_SIMCC = ("simcc_x", "simcc_y")
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"


class OnnxNetwork:
    """An ONNX file with one input; see `Network`."""

    def __init__(self, path: Path, compute: Compute, size: tuple[int, int] | None = None) -> None:
        """
        Args:
            size: height and width of the input, if the file's own are to be changed, pixels.

        Raises:
            UserError: the file cannot be loaded, also with this size, or the installed ONNX Runtime has no CUDA or
                TensorRT while these are needed.
            OSError: ONNX Runtime cannot use CUDA or TensorRT on this machine.
        """
        # Imported here: most runs do not need it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers: list[Any] = ["CPUExecutionProvider"]
        wanted: str | None = None
        self._computing = compute.computing
        self.runtime = "tensorrt" if compute.runtime == "tensorrt" else "onnx"
        if compute.device.type == "cuda":
            wanted = _TENSORRT if compute.runtime == "tensorrt" else _CUDA
            if wanted not in onnxruntime.get_available_providers():
                raise UserError(
                    f"{path}: the installed onnxruntime has no {wanted}; install onnxruntime-gpu instead of it, or set "
                    "--compute.device cpu"
                )
            # TF32 off, as in torch. A process that sees several GPUs uses the current one.
            device = torch.cuda.current_device()
            providers.insert(0, (_CUDA, {"device_id": device, "use_tf32": 0}))
            if wanted == _TENSORRT:
                engines = {
                    "trt_engine_cache_enable": True,
                    "trt_engine_cache_path": str(_engine_folder(path, device, size)),
                }
                providers.insert(0, (_TENSORRT, {"device_id": device, **engines}))
        try:
            model = path if size is None else _resized(path, size)
            self._session = onnxruntime.InferenceSession(model, options, providers)
        except Exception as error:  # the exception classes of onnxruntime share no base class
            raise UserError(f"{path}: onnxruntime cannot load it ({first_line(error)})") from None
        if wanted and wanted not in self._session.get_providers():
            raise OSError(
                f"onnxruntime cannot use {wanted} on this machine: its message above names the missing library; set "
                "--compute.device cpu to run without a GPU"
            )
        self._session.disable_fallback()  # a call that fails on the GPU must not continue on the CPU
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(f"{source.name} {source.shape}" for source in inputs)
            raise UserError(f"{path}: expected one input (B, 3, H, W), not {shapes or 'none'}")
        shape = list(inputs[0].shape)
        # TensorFlow's networks often have whole numbers as input, too.
        self._channels_last = _has_channels_last(shape)
        self._type = _INPUT_TYPES.get(inputs[0].type, np.float32)
        batch, _, height, width = [shape[i] for i in (0, 3, 1, 2)] if self._channels_last else shape
        self._input = inputs[0].name
        self._outputs = chosen_outputs([output.name for output in self._session.get_outputs()])
        self.batch_size = batch if isinstance(batch, int) else None
        self.input_size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, inputs: Tensor) -> Tensor:
        step = self.batch_size or len(inputs)
        padded = torch.cat([inputs, inputs[:1].expand(-len(inputs) % step, -1, -1, -1)]).float().cpu().numpy()
        if self._channels_last:
            padded = np.ascontiguousarray(padded.transpose(0, 2, 3, 1))
        padded = padded.astype(self._type, copy=False)
        batches = [padded[start : start + step] for start in range(0, len(padded), step)]
        with self._computing():
            outputs = [joined(self._session.run(self._outputs, {self._input: batch})) for batch in batches]
        return torch.from_numpy(np.concatenate(outputs)[: len(inputs)])


def _has_channels_last(shape: Sequence[Any]) -> bool:
    return shape[3] == _COLOURS and shape[1] != _COLOURS


def chosen_outputs(names: Sequence[str]) -> list[str]:
    """The outputs that a network is run for: the first, or both of a SimCC network as MMPose names them."""
    return list(_SIMCC) if set(_SIMCC) <= set(names) else list(names[:1])


def joined(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The outputs of `chosen_outputs` as one."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)


def _resized(path: Path, size: tuple[int, int]) -> bytes:
    """The model with another height and width of its input; operations that need the old ones fail when they run.

    All other stated shapes are removed: they would contradict it.
    """
    import onnx

    model = onnx.load(path)
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    first = 1 if _has_channels_last([dimension.dim_value for dimension in dimensions]) else 2
    for dimension, side in zip(dimensions[first : first + 2], size, strict=True):
        dimension.dim_value = side
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model.SerializeToString()


def _engine_folder(path: Path, device: int, size: tuple[int, int] | None) -> Path:
    """Where TensorRT keeps the engine of a file: one fits one kind of GPU, one version, one file and one input size."""
    import onnxruntime

    gpu = torch.cuda.get_device_name(device).replace(" ", "-")
    key = f"{gpu}-onnxruntime-{onnxruntime.__version__}-{storage.file_sha256(path)[:16]}"
    if size is not None:
        key += f"-{size[0]}x{size[1]}"
    folder = storage.cache_folder() / "tensorrt" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder
