"""The device and the precision of the networks."""

from __future__ import annotations

import contextlib
import copy
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from pipeline.errors import UserError
from pipeline.runtime.computing import ComputingTime
from pipeline.runtime.modes import Mode

Precision = Literal["auto", "bf16", "fp16", "float32"]
Runtime = Literal["auto", "torch", "onnx", "openvino", "tensorrt"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}
OTHER_PRECISION = "set --compute.precision float32, or bf16 if the processor has it"
Image = np.ndarray | Tensor  # (H, W, 3) uint8 RGB, in memory or on the device of the networks


class Streams(NamedTuple):
    """The streams of a GPU beside that of the pose networks, which is the default stream.

    Attributes:
        copies: for uploads of images.
        detector: for the detector.
    """

    copies: torch.cuda.Stream
    detector: torch.cuda.Stream


@dataclass(frozen=True)
class Compute:
    """A device, the precision in which networks compute on it, and what runs them; resolved once per process.

    Attributes:
        runtime: `auto` for what suits the file of a network.
        mode: how PyTorch starts the operations of networks, see `pipeline.runtime.modes`; `auto` for the fastest that
            rounds alike.
        warps: whether images are scaled and cropped on the device, see `pipeline.warping`; else by OpenCV.
        jpeg: what decodes plain JPEGs, see `pipeline.decoders.device_jpeg`.
        streams: of a GPU that scales and crops images; None without one.
        notes: for the user, about what happened while networks ran.
    """

    device: torch.device
    dtype: torch.dtype
    runtime: Runtime = "auto"
    mode: Mode | Literal["auto"] = "auto"
    warps: bool = False
    jpeg: Literal["cpu", "device"] = "cpu"
    streams: Streams | None = None
    notes: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def resolve(
        cls,
        device: Literal["auto", "cuda", "cpu"] = "auto",
        precision: Precision = "auto",
        runtime: Runtime = "auto",
        pixels: Literal["auto", "opencv", "torch"] = "auto",
        mode: Mode | Literal["auto"] = "auto",
        jpeg: Literal["cpu", "device"] = "cpu",
    ) -> Compute:
        """The given device and precision; `auto` chooses the best that the machine and the runtime have.

        Raises:
            UserError: `device` is cuda, and no GPU is visible; or the runtime or the mode does not support the device.
        """
        has_gpu = torch.cuda.is_available()
        if device == "cuda" and not has_gpu:
            raise UserError("--compute.device cuda: no GPU is visible to this process; use auto or cpu")
        chosen = torch.device("cuda" if has_gpu and device != "cpu" else "cpu")
        if runtime == "tensorrt" and chosen.type != "cuda":
            raise UserError(
                "--compute.runtime tensorrt needs a GPU; none is visible to this process, or it is not used"
            )
        if runtime == "openvino" and chosen.type == "cuda":
            raise UserError("--compute.runtime openvino runs on the CPU; set --compute.device cpu")
        if mode == "graph" and chosen.type != "cuda":
            raise UserError("--compute.mode graph needs a GPU; none is visible to this process, or it is not used")
        if runtime in ("onnx", "openvino", "tensorrt"):
            precision = "float32"  # networks are exported in it; a file states its own
        if chosen.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # else convolutions in float32 use TF32 (10 bits of mantissa)
        if precision == "auto":
            native = computes_in_bf16(chosen)
            precision = "bf16" if native else "fp16" if chosen.type == "cuda" else "float32"
        warps = pixels == "torch" or (pixels == "auto" and (chosen.type == "cuda" or jpeg == "device"))
        streams = Streams(torch.cuda.Stream(), torch.cuda.Stream()) if warps and chosen.type == "cuda" else None
        return cls(chosen, _DTYPES[precision], runtime, mode, warps, jpeg, streams)

    @cached_property
    def computing(self) -> ComputingTime:
        """The time in which networks compute on the device; every network marks its calls."""
        return ComputingTime(self.device)

    @property
    def own_runtime(self) -> Runtime:
        """What runs the networks that this package defines. ONNX Runtime is faster than PyTorch on a CPU without bf16.

        The choice is by the processor's instructions, not by measuring: workers of one run must choose alike.
        """
        if self.runtime != "auto":
            return self.runtime
        if self.mode != "auto":
            return "torch"
        slow = self.device.type == "cpu" and self.dtype == torch.float32 and not computes_in_bf16(self.device)
        return "onnx" if slow else "torch"

    @property
    def warning(self) -> str | None:
        """What makes this choice slow, for the user; None if nothing does."""
        emulated = self.dtype == torch.bfloat16 and not computes_in_bf16(self.device)
        if emulated or (self.dtype == torch.float16 and self.device.type == "cpu"):
            name = "bf16" if emulated else "fp16"
            return (
                f"this processor emulates {name}, which is many times slower than float32; leave out "
                "--compute.precision"
            )
        return None

    def describe(self) -> dict[str, str]:
        """Device, processor and precision in PyTorch, for the metadata of tables."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "processor": _processor(), "precision": str(self.dtype).removeprefix("torch.")}

    def prepare(self, model: nn.Module) -> nn.Module:
        """Prepare a network for inference: evaluation mode, folded BatchNorm, channels last, device and precision.

        The last convolutions always compute in float32: fewer bits would round neighbouring heatmap values to the same
        number, and their order decides the position of a joint.

        Raises:
            UserError: weights are too large for fp16.
        """
        model = model.eval().requires_grad_(False)
        prepared = fuse(model)
        exact: dict[nn.Module, dict[str, Tensor]] = {}
        if self.dtype != torch.float32 and isinstance(prepared, fx.GraphModule):
            exact = {layer: copy.deepcopy(layer.state_dict()) for layer in _last_convolutions(prepared)}
        prepared = prepared.to(self.device, self.dtype)
        if self.dtype == torch.float16 and not all(bool(values.isfinite().all()) for values in prepared.parameters()):
            raise UserError(f"the weights of a network are too large for fp16; {OTHER_PRECISION}")
        for layer, state in exact.items():
            layer.float().load_state_dict(state)
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        return prepared.to(memory_format=torch.channels_last)

    def peak_megabytes(self) -> float:
        """Peak GPU memory of this process, megabytes; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0

    def upload(self, image: Image) -> Image:
        """An image (H, W, 3) uint8 where it is scaled and cropped: as a tensor on the device, or as it is.

        Any thread may call it. A GPU copies beside its other work: call `await_uploads` before the tensor is used.
        """
        if not self.warps or isinstance(image, Tensor):
            return image
        pixels = torch.from_numpy(np.require(image, requirements="W"))  # else PyTorch warns; Pillow's are read-only
        if self.streams is None:
            return pixels
        with torch.cuda.stream(self.streams.copies):
            copied = pixels.pin_memory().to(self.device, non_blocking=True)
        # Its memory is reused only after the work of the networks that is queued when it is freed. The detector's
        # stream has no such work then: the boxes of an image are known before it is freed.
        copied.record_stream(torch.cuda.default_stream(self.device))
        return copied

    def await_uploads(self) -> None:
        """Let the work that this thread queues from now on wait for the uploads until now. Only the GPU waits."""
        if self.streams is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.streams.copies)

    def await_loading(self) -> None:
        """Wait until weights are on the device: streams do not wait for the one that loads them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def beside_poses(self) -> AbstractContextManager[object]:
        """A block whose work a GPU computes beside that of the pose networks."""
        return contextlib.nullcontext() if self.streams is None else torch.cuda.stream(self.streams.detector)

    def to_input(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in 0..1, channels last, on the device."""
        return pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32) / 255


def _last_convolutions(traced: fx.GraphModule) -> list[nn.Module]:
    """The convolutions that are followed only by operations without parameters."""
    modules = dict(traced.named_modules())
    convolutions: dict[str, nn.Module] = {}
    seen: set[fx.Node] = set()
    waiting = [node for node in traced.graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        module = modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d):
            convolutions[str(node.target)] = module
        elif module is None or isinstance(module, nn.Identity):
            waiting += node.all_input_nodes
    return list(convolutions.values())


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; emulation does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def pin_threads(count: int) -> None:
    """Limit torch and OpenCV to `count` threads each, so that workers on one machine do not compete for cores."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _processor() -> str:
    """The name of the CPU and the number of its cores that this process may use."""
    name = platform.machine()
    with contextlib.suppress(OSError, StopIteration):  # Linux alone has the file
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
