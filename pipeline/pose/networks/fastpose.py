"""FastPose: a backbone, one pixel shuffle, two dense upsampling convolutions and a 3x3 to the heatmaps.

Fang et al., AlphaPose: Whole-Body Regional Multi-Person Pose Estimation and Tracking in Real-Time, TPAMI 2022; the
upsampling is Wang et al., Understanding Convolution for Semantic Segmentation, WACV 2018.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

from pipeline.pose.networks.se_resnet import SEResNet


class DUC(nn.Module):
    """Dense upsampling: a 3x3 convolution whose channels become a map of twice the size, (B, C/4, 2H, 2W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.pixel_shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pixel_shuffle(self.relu(self.bn(self.conv(x))))


class _FastPoseHead(nn.Module):
    """Backbone features at 1/32 to heatmaps at 1/4: the part that all of the family share."""

    def __init__(self, preact: nn.Module, channels: int, num_joints: int, conv_dim: int) -> None:
        super().__init__()
        self.preact = preact
        self.shuffle1 = nn.PixelShuffle(2)
        self.duc1 = DUC(channels // 4, 1024)
        self.duc2 = DUC(256, 4 * conv_dim)
        self.conv_out = nn.Conv2d(conv_dim, num_joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.duc2(self.duc1(self.shuffle1(self.preact(x)))))


class FastPose(_FastPoseHead):
    """FastPose on SE-ResNet: (B, 3, H, W) to (B, num_joints, H/4, W/4)."""

    def __init__(self, num_layers: int, num_joints: int = 17, conv_dim: int = 128) -> None:
        super().__init__(SEResNet(num_layers), 2048, num_joints, conv_dim)


class _MobileFeatures(nn.Module):
    def __init__(self, size: Literal["small", "large"]) -> None:
        super().__init__()
        build = {"small": mobilenet_v3_small, "large": mobilenet_v3_large}[size]
        self.features = build(weights=None).features

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class FastPoseMobile(_FastPoseHead):
    """FastPose on MobileNetV3 (Howard et al., ICCV 2019): the light one, same shapes."""

    def __init__(self, size: Literal["small", "large"], num_joints: int = 17, conv_dim: int = 128) -> None:
        super().__init__(_MobileFeatures(size), {"small": 576, "large": 960}[size], num_joints, conv_dim)
