"""Darknet networks (the YOLO family), built from a .cfg description and a .weights file.

Redmon and Farhadi, YOLOv3, 2018; Bochkovskiy et al., YOLOv4, 2020. The file formats are Darknet's. Two extensions of
the descriptions describe NanoDet: the section [distances], and `bilinear=1` in [upsample].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.detectors.cells import cell_grid
from pipeline.detectors.darknet_outputs import Distances, Output, Yolo
from pipeline.errors import UserError, first_line

_BN_EPS = 1e-6


class DarknetError(UserError):
    """A description or weights file that cannot be used; the message names the section or the count."""


_ACTIVATIONS: dict[str, Any] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "swish": lambda: nn.SiLU(inplace=True),
    "logistic": nn.Sigmoid,
}


def parse_cfg(text: str) -> list[dict[str, str]]:
    """The sections of a description in file order, each as its `key = value` lines and its name as "type"."""
    sections: list[dict[str, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("["):
            sections.append({"type": line.strip("[]").strip()})
        elif "=" in line and sections:
            key, value = line.split("=", 1)
            sections[-1][key.strip()] = value.strip()
        else:
            raise DarknetError(f"line {number} of the description is {raw!r}; expected [section] or key=value")
    if not sections or sections[0]["type"] not in ("net", "network"):
        raise DarknetError("the description does not start with a [net] section")
    return sections


# Options that the sections of a detector may have. The first set is used; the second concerns training alone. Others
# change the computation, and are refused unless they are switched off.
_OPTIONS: dict[str, tuple[set[str], set[str]]] = {
    "convolutional": (
        {"batch_normalize", "filters", "size", "stride", "stride_x", "stride_y", "pad", "padding", "activation"}
        | {"groups", "dilation"},
        {"stopbackward", "train_only_bn", "burnin_update", "learning_rate", "dont_update", "onlyforward"},
    ),
    "shortcut": ({"from", "activation"}, set()),
    "route": ({"layers", "groups", "group_id"}, {"stopbackward"}),
    "upsample": ({"stride", "scale", "bilinear"}, set()),
    "local_avgpool": ({"size", "stride"}, set()),
    "distances": ({"classes", "bins"}, set()),
    "maxpool": ({"size", "stride", "stride_x", "stride_y", "padding"}, set()),
}
_SWITCHED_OFF = ("0", "none")
_STRIDE = 32  # of the coarsest maps of usual networks
_COLOURS = 3


class _Pool(nn.Module):
    """Max pooling, padded with -infinity by size - 1 in total, the smaller half on the left and top."""

    def __init__(self, size: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        before = (size - 1) // 2
        self.padding = (before, size - 1 - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, self.padding, value=-math.inf), self.size, self.stride)


class _Upsample(nn.Module):
    """Upsampling, nearest or bilinear; values are multiplied by `factor`."""

    def __init__(self, stride: int, factor: float, bilinear: bool) -> None:
        super().__init__()
        self.stride, self.factor = stride, factor
        self.mode = "bilinear" if bilinear else "nearest"

    def forward(self, x: Tensor) -> Tensor:
        larger = F.interpolate(x, scale_factor=self.stride, mode=self.mode)
        return larger if self.factor == 1 else larger * self.factor


class Darknet(nn.Module):
    """A network built from a description: (B, 3, H, W) RGB in 0..1 to (B, N, 5 + C) predictions.

    Predictions are cx cy w h in network pixels, objectness, class probabilities; output sections in file order. H and W
    may be any multiples of 32.

    Attributes:
        size: height and width in the description; other sizes work too.
        classes: number of classes of the output sections.
        letterbox: whether the description wants images in their aspect ratio; None if it does not say.
    """

    def __init__(self, cfg: str) -> None:
        super().__init__()
        net, *sections = parse_cfg(cfg)
        for index, section in enumerate(sections):
            _check_options(index, section)
        if net.get("channels", "3") != str(_COLOURS):
            raise DarknetError(
                f"section [net]: channels is {net['channels']}; only networks for RGB images are supported"
            )
        self.letterbox = None if "letter_box" not in net else net["letter_box"] != "0"
        try:
            self.size = (int(net.get("height", 416)), int(net.get("width", 416)))
        except ValueError:
            raise DarknetError(
                f"section [net]: height {net.get('height')} or width {net.get('width')} is not an integer"
            ) from None
        self.sections = sections
        self.layers = nn.ModuleList()
        self.classes = 0
        self._missing_channels: dict[int, list[int]] = {}  # of the maps that each shortcut adds
        self._channels: list[int] = []
        scales: list[float] = []
        incoming = _COLOURS
        for index, section in enumerate(sections):
            try:
                layer, incoming = self._build(index, section, incoming, self._channels)
            except (KeyError, ValueError, IndexError, ArithmeticError, TypeError, RuntimeError) as error:
                if isinstance(error, DarknetError):
                    raise
                raise DarknetError(f"section {index} [{section['type']}]: missing or bad {first_line(error)}") from None
            self.layers.append(layer)
            self._channels.append(incoming)
            scales.append(_scale(index, section, scales))
        if not self.classes:
            raise DarknetError("the description has no [yolo] or [distances] section; a detector needs at least one")
        self._outputs = [
            (layer, round(scale)) for layer, scale in zip(self.layers, scales, strict=True) if isinstance(layer, Output)
        ]
        self._reused = {source for i, s in enumerate(sections) for source in _sources(i, s)}
        self.check_size(*(max(_STRIDE, side // _STRIDE * _STRIDE) for side in self.size))

    @classmethod
    def from_files(cls, cfg_path: str | Path, weights_path: str | Path) -> Darknet:
        """A trained network from a local description and .weights file.

        Raises:
            DarknetError: a file cannot be used.
        """
        try:
            network = cls(Path(cfg_path).read_text())
            network.load_darknet_weights(Path(weights_path).read_bytes())
        except DarknetError as error:
            raise DarknetError(f"{cfg_path} with {weights_path}: {error}") from None
        return network

    def outputs(self) -> Iterator[tuple[nn.Conv2d, Output]]:
        """Each output section with the convolution before it."""
        for before, layer in pairwise(self.layers):
            if isinstance(layer, Output):
                assert isinstance(before, nn.Sequential)
                yield cast(nn.Conv2d, before.conv), layer

    def cells(self, height: int, width: int) -> Tensor:
        """(N, 3) centre x, centre y and stride of the cell of each prediction, in pixels of an input of this size."""
        grids = ((cell_grid(height, width, stride), output.per_cell) for output, stride in self._outputs)
        return torch.cat([grid.repeat_interleave(count, dim=0) for grid, count in grids])

    @property
    def reach(self) -> float:
        """Maximum distance of a prediction's centre from that of its cell, in cells; the minimum of all outputs."""
        return min(output.reach for output, _ in self._outputs)

    def _build(self, index: int, section: dict[str, str], incoming: int, channels: list[int]) -> tuple[nn.Module, int]:
        kind = section["type"]
        if kind == "convolutional":
            size, filters = int(section["size"]), int(section["filters"])
            padding = size // 2 if int(section.get("pad", 0)) else int(section.get("padding", 0))
            dilation = int(section.get("dilation", 1)) if size > 1 else 1
            if dilation > 1 and padding != size // 2:
                raise DarknetError(f"section {index} [convolutional]: dilation needs pad=1")
            normalised = bool(int(section.get("batch_normalize", 0)))
            activation = section.get("activation", "logistic")
            if activation not in _ACTIVATIONS:
                raise DarknetError(
                    f"section {index} [convolutional]: activation is {activation!r}; known: {', '.join(_ACTIVATIONS)}"
                )
            layer = nn.Sequential()
            layer.add_module(
                "conv",
                nn.Conv2d(
                    incoming,
                    filters,
                    size,
                    _strides(section),
                    padding * dilation,
                    dilation,
                    groups=int(section.get("groups", 1)),
                    bias=not normalised,
                ),
            )
            if normalised:
                layer.add_module("bn", nn.BatchNorm2d(filters, eps=_BN_EPS))
            layer.add_module("activation", _ACTIVATIONS[activation]())
            return layer, filters
        if kind == "shortcut":
            activation = section.get("activation", "linear")
            if activation not in _ACTIVATIONS:
                raise DarknetError(f"section {index} [shortcut]: activation is {activation!r}")
            self._missing_channels[index] = [incoming - channels[source] for source in _sources(index, section)]
            return _ACTIVATIONS[activation](), incoming
        if kind == "route":
            groups, sources = int(section.get("groups", 1)), [channels[n] for n in _sources(index, section)]
            if any(count % groups for count in sources) or not 0 <= int(section.get("group_id", 0)) < groups:
                raise DarknetError(
                    f"section {index} [route]: {groups} groups, of which it takes {section.get('group_id', 0)}, do not "
                    f"fit maps of {', '.join(map(str, sources))} channels"
                )
            return nn.Identity(), sum(sources) // groups
        if kind == "upsample":
            bilinear = bool(int(section.get("bilinear", 0)))
            return _Upsample(int(section.get("stride", 2)), float(section.get("scale", 1)), bilinear), incoming
        if kind == "local_avgpool":
            return nn.AvgPool2d(int(section["size"]), int(section.get("stride", 1))), incoming
        if kind == "maxpool":
            size = int(section.get("size", section.get("stride", 1)))
            if int(section.get("padding", size - 1)) != size - 1:
                raise DarknetError(f"section {index} [maxpool]: padding={section['padding']} is not supported")
            return _Pool(size, _strides(section)), incoming
        if kind == "dropout":
            return nn.Identity(), incoming
        if kind == "yolo":
            values = [float(v) for v in section["anchors"].split(",")]
            pairs = list(zip(values[::2], values[1::2], strict=True))
            mask = [int(v) for v in section.get("mask", ",".join(map(str, range(len(pairs))))).split(",")]
            self.classes = int(section["classes"])
            if incoming != len(mask) * (5 + self.classes):
                raise DarknetError(
                    f"section {index} [yolo]: its input has {incoming} channels; {len(mask)} anchors of {self.classes} "
                    f"classes need {len(mask) * (5 + self.classes)}"
                )
            yolo = Yolo(
                [pairs[m] for m in mask],
                self.classes,
                float(section.get("scale_x_y", 1.0)),
                bool(int(section.get("new_coords", 0))),
            )
            return yolo, incoming
        if kind == "distances":
            distances = Distances(int(section["classes"]), int(section["bins"]))
            self.classes = distances.classes
            if incoming != distances.classes + 4 * distances.bins:
                raise DarknetError(
                    f"section {index} [distances]: its input has {incoming} channels; {distances.classes} classes and "
                    f"4 distances of {distances.bins} bins need {distances.classes + 4 * distances.bins}"
                )
            return distances, incoming
        raise DarknetError(f"section {index} is [{kind}], which is not supported")

    def forward(self, x: Tensor) -> Tensor:
        input_height = x.shape[2]
        outputs: dict[int, Tensor] = {}
        predictions: list[Tensor] = []
        for index in range(len(self.sections)):
            x = self._run(index, x, outputs, predictions, input_height)
        return torch.cat(predictions, dim=1)

    def _run(
        self, index: int, x: Tensor, outputs: dict[int, Tensor], predictions: list[Tensor], input_height: int
    ) -> Tensor:
        """The output of a section for the output of the section before it; later sections find theirs in `outputs`."""
        section, layer = self.sections[index], self.layers[index]
        kind = section["type"]
        if isinstance(layer, Output):
            predictions.append(layer(x, input_height))
        elif kind == "route":
            groups, part = int(section.get("groups", 1)), int(section.get("group_id", 0))
            x = torch.cat([outputs[source].chunk(groups, dim=1)[part] for source in _sources(index, section)], dim=1)
        elif kind == "shortcut":
            for source, missing in zip(_sources(index, section), self._missing_channels[index], strict=True):
                x = x + _with_more_channels(outputs[source], missing)
            x = layer(x)
        else:
            x = layer(x)
        if index in self._reused:
            # Later in-place activations do not change it: they follow convolutions, which create new tensors.
            outputs[index] = x
        return x

    def check_size(self, height: int, width: int) -> None:
        """Follow height and width of the maps through the sections.

        Raises:
            DarknetError: maps that a section joins differ in size, or a map is smaller than the kernel.
        """
        # Not by a run on the meta device: its first use imports a compiler, which takes more than a second.
        before = (height, width)
        outputs: list[tuple[int, int]] = []
        for index, section in enumerate(self.sections):
            joined = [] if section["type"] == "route" else [(before, index - 1)]
            joined += [(outputs[source], source) for source in _sources(index, section)]
            sizes = [size for size, _ in joined]
            after = _output_size(self.layers[index], sizes[0])
            if len(set(sizes)) > 1 or min(after) < 1:
                maps = ", ".join(f"{h}x{w}x{self._channels[n] if n >= 0 else _COLOURS}" for (h, w), n in joined)
                raise DarknetError(f"section {index} [{section['type']}]: maps of {maps} do not fit")
            outputs.append(after)
            before = after

    def load_darknet_weights(self, data: bytes) -> None:
        """Fill the parameters from the bytes of a .weights file.

        Raises:
            DarknetError: the file has more or fewer values than the description needs.
        """
        if len(data) < 20:
            raise DarknetError(f"the weights file has {len(data)} bytes; its header alone needs 20")
        major, minor = np.frombuffer(data, "<i4", 2)
        header = 20 if major * 10 + minor >= 2 else 16
        values = torch.from_numpy(np.frombuffer(data[header : header + (len(data) - header) // 4 * 4], "<f4").copy())
        tensors: list[Tensor] = []
        for layer in self.layers:
            state = layer.state_dict()
            names = ["bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.bias", "conv.weight"]
            tensors += [state[name] for name in names if name in state]
        needed = sum(t.numel() for t in tensors)
        if needed != len(values):
            raise DarknetError(f"the weights file has {len(values)} values, but the description needs {needed}")
        position = 0
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(values[position : position + tensor.numel()].view_as(tensor))
                position += tensor.numel()


def _check_options(index: int, section: dict[str, str]) -> None:
    """
    Raises:
        DarknetError: an option changes the computation in a way that is not supported here.
    """
    used, ignored = _OPTIONS.get(section["type"], (set(section), set()))
    for option, value in section.items():
        off = value in _SWITCHED_OFF and option != "share_index"  # which names a section, from 0
        if option not in ("type", *used, *ignored) and not off:
            raise DarknetError(f"section {index} [{section['type']}]: {option}={value} is not supported")


def _output_size(layer: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the output of a section for maps of this size."""
    if isinstance(layer, _Pool):
        height, width = ((side - 1) // stride + 1 for side, stride in zip(size, layer.stride, strict=True))
        return height, width
    if isinstance(layer, nn.AvgPool2d):
        kernel, step = cast(int, layer.kernel_size), cast(int, layer.stride)
        return (size[0] - kernel) // step + 1, (size[1] - kernel) // step + 1
    if isinstance(layer, _Upsample):
        return size[0] * layer.stride, size[1] * layer.stride
    conv = getattr(layer, "conv", None)
    if conv is None:
        return size
    kernel, stride, padding, dilation = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    height, width = (
        (side + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i, side in enumerate(size)
    )
    return height, width


def _strides(section: dict[str, str]) -> tuple[int, int]:
    """Vertical and horizontal stride."""
    stride = section.get("stride", "1")
    return int(section.get("stride_y", stride)), int(section.get("stride_x", stride))


def _with_more_channels(x: Tensor, count: int) -> Tensor:
    """A map with further channels of zeros, or without its last ones: how Darknet adds maps of different depth."""
    return F.pad(x, (0, 0, 0, 0, 0, count)) if count > 0 else x[:, :count] if count < 0 else x


def _scale(index: int, section: dict[str, str], scales: list[float]) -> float:
    """Stride of a section's output, in pixels of the network input."""
    kind = section["type"]
    before = scales[index - 1] if index else 1.0
    if kind in ("convolutional", "maxpool", "local_avgpool"):
        return before * _strides(section)[0]
    if kind == "upsample":
        return before / int(section.get("stride", 2))
    return scales[_sources(index, section)[0]] if kind == "route" else before


def _sources(index: int, section: dict[str, str]) -> list[int]:
    """Absolute indices of the sections whose outputs a route or shortcut uses."""
    key = {"route": "layers", "shortcut": "from"}.get(section["type"])
    if key is None:
        return []
    numbers = [int(v) for v in section[key].split(",")]
    absolute = [n if n >= 0 else index + n for n in numbers]
    for number, source in zip(numbers, absolute, strict=True):
        if not 0 <= source < index:
            raise DarknetError(f"section {index} [{section['type']}]: {key} {number} is not an earlier section")
    return absolute
