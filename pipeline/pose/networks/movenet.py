"""The network of MoveNet Thunder as a top-down pose network: MobileNetV2 of width 1.75 with a feature pyramid.

Sandler et al., MobileNetV2, CVPR 2018; Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; heatmaps
and offsets as in MoveNet (Google, Apache 2.0), whose weights infra/weights/human_models/movenet.py converts. Its batch
norms are folded: convolutions have biases instead. Strided convolutions pad at the right and at the bottom alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.pose.networks.spec import PoseSpec

_MEAN = (0.406, 0.457, 0.480)  # of the inputs of pose networks, which is subtracted from 0..1
_STEM = 56
# Of each stage: channels, blocks, stride of the first block, expansion.
_STAGES = ((32, 1, 1, 1), (40, 2, 2, 6), (56, 3, 2, 6), (112, 4, 2, 6), (168, 3, 1, 6), (280, 3, 2, 6), (560, 1, 1, 6))
_RETURNED_STAGES = (1, 2, 3)  # the last ones at 1/4, 1/8 and 1/16
_COARSEST = 1280
_PYRAMID = (24, 32, 64)  # channels at 1/4, 1/8 and 1/16
_HEAD = 96
# Standard deviations of Gaussians, cells: how far the centre of the person may be from the middle of the crop, and a
# joint from where it is regressed. The division by the distance + 1.8 in MoveNet's own decoding is made for whole
# images: where two people overlap it takes the person beside the middle too often (AP 0.559 instead of 0.574).
_CENTRE_SIGMA = 6.0
_JOINT_SIGMA = 7.0
# Power of the probability that there is a person in the middle, a factor of its joints' scores: an eighth of the
# predicted people who are nobody's then fall under the usual threshold. A higher power loses people.
_PERSON_POWER = 0.2
_LEAST = 1e-3  # of that probability: the slope of the power at 0 is infinite


def _layer(in_channels: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and ReLU6; padding for inputs of even size."""
    padding = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups)
    return [*([nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []), convolution, nn.ReLU6(inplace=True)]


class _Block(nn.Module):
    """Inverted residual: expansion, depthwise convolution, projection; with a shortcut if the shapes match."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.layers = nn.Sequential(
            *(_layer(in_channels, width) if expansion > 1 else []),
            *_layer(width, width, 3, stride, groups=width),
            nn.Conv2d(width, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class _Separable(nn.Sequential):
    """A depthwise 3x3 convolution, a 1x1 convolution, and ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, channels, 1),
            nn.ReLU(inplace=True),
        )


class MoveNetPyramid(nn.Module):
    """(B, 3, H, W) to (B, 3 x num_joints, H/4, W/4): the heatmaps, then an x and a y offset map per joint.

    Heatmaps are in 0..1. Offsets are in heatmap cells, from a cell to the joint: x0, y0, x1, y1, ...

    The heatmaps of MoveNet show the joints of everybody. Similar to its own decoding, the person whose centre is in the
    middle is chosen, its joints are regressed from there, and heatmaps are lowered with the distance from these.
    """

    mean: Tensor

    def __init__(self, num_joints: int = 17) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(3, _STEM, 3, 2))
        stages, width = [], _STEM
        for channels, blocks, stride, expansion in _STAGES:
            stage = []
            for i in range(blocks):
                stage.append(_Block(width, channels, stride if i == 0 else 1, expansion))
                width = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Sequential(*_layer(width, _COARSEST))
        self.top = nn.Conv2d(_COARSEST, _PYRAMID[-1], 1)
        finer = [_STAGES[i][0] for i in _RETURNED_STAGES]
        self.lateral = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(finer, _PYRAMID, strict=True))
        outputs = (_PYRAMID[0], *_PYRAMID[:-1])
        self.smooth = nn.ModuleList(_Separable(a, b) for a, b in zip(_PYRAMID, outputs, strict=True))
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear")
        self.heatmap = _head(num_joints)
        self.offset = _head(2 * num_joints)
        self.centre = _head(1)
        self.regression = _head(2 * num_joints)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(2 * (x + self.mean) - 1)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _RETURNED_STAGES:
                features.append(x)
        x = self.top(self.last(x))
        for lateral, smooth, feature in reversed(list(zip(self.lateral, self.smooth, features, strict=True))):
            x = smooth(self.upsample(x) + lateral(feature))
        likely = self.heatmap(x).sigmoid() * _nearness(self.centre(x).sigmoid(), self.regression(x))
        return torch.cat([likely, self.offset(x)], dim=1)


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(_Separable(_PYRAMID[0], _HEAD), nn.Conv2d(_HEAD, outputs, 1))


def _nearness(centre: Tensor, regression: Tensor) -> Tensor:
    """(B, K, H, W) from 0 to 1, how near a cell is to each joint of the person in the middle, if there is one.

    Args:
        centre: (B, 1, H, W) probability of the centre of a person.
        regression: (B, 2K, H, W) x and y of each joint of the person at a cell, relative to it, in cells.
    """
    height, width = centre.shape[2:]
    y = torch.arange(height, device=centre.device, dtype=centre.dtype)[:, None]
    x = torch.arange(width, device=centre.device, dtype=centre.dtype)[None]
    in_middle = _gaussian((y - height / 2).square() + (x - width / 2).square(), _CENTRE_SIGMA)
    cell = (centre[:, 0] * in_middle).flatten(1).argmax(dim=1)[:, None, None]
    person = centre.flatten(2).gather(2, cell).clamp(min=_LEAST).pow(_PERSON_POWER)[..., None]
    relative = regression.flatten(2).gather(2, cell.expand(-1, regression.shape[1], -1))  # (B, 2K, 1)
    joint_x, joint_y = relative[:, 0::2] + cell % width, relative[:, 1::2] + cell // width
    return person * _gaussian((y - joint_y[..., None]).square() + (x - joint_x[..., None]).square(), _JOINT_SIGMA)


def _gaussian(squared_distance: Tensor, sigma: float) -> Tensor:
    return (-squared_distance / (2 * sigma**2)).exp()


SPECS = {"movenet_pyramid": PoseSpec(MoveNetPyramid, decodings=("offset",))}
