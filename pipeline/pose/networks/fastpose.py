"""FastPose: a backbone, dense upsampling convolutions with pixel shuffles, and a 3x3 convolution to heatmaps.

Fang et al., AlphaPose: Whole-Body Regional Multi-Person Pose Estimation and Tracking in Real-Time, TPAMI 2022; the
upsampling is Wang et al., Understanding Convolution for Semantic Segmentation, WACV 2018.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.pose.networks.efficientnet import EfficientNetLite0
from pipeline.pose.networks.pruning import InnerChannels
from pipeline.pose.networks.resnet import ResNet
from pipeline.pose.networks.spec import PoseSpec

_CLASSIC_OUTPUTS = 33
_DENSE_OUTPUTS = 32
_BODY_OUTPUTS = 17
_SHUFFLED = 4  # channels that a pixel shuffle makes one of


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

    def read_by(self, reader: nn.Conv2d) -> InnerChannels:
        """The channels between this convolution and the one that reads its output first."""
        return InnerChannels((self.conv,), self.bn, (reader,), between=(self.bn,), group=_SHUFFLED)


class _FastPoseHead(nn.Module):
    """Backbone features at 1/32 to heatmaps at 1/4: the part that the variants share."""

    def __init__(self, preact: nn.Module, channels: int, num_joints: int, conv_dim: int) -> None:
        super().__init__()
        self.preact = preact
        self.shuffle1 = nn.PixelShuffle(2)
        self.duc1 = DUC(channels // 4, 1024)
        self.duc2 = DUC(256, 4 * conv_dim)
        self.conv_out = nn.Conv2d(conv_dim, num_joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.duc2(self.duc1(self.shuffle1(self.preact(x)))))

    def inner_channels(self) -> list[InnerChannels]:
        return [self.duc1.read_by(self.duc2.conv), self.duc2.read_by(self.conv_out)]


class FastPose(_FastPoseHead):
    """FastPose on SE-ResNet: (B, 3, H, W) to (B, num_joints, H/4, W/4)."""

    def __init__(self, num_layers: int, num_joints: int = 17, conv_dim: int = 128) -> None:
        super().__init__(ResNet(num_layers, attention=True), 2048, num_joints, conv_dim)


class DeformableFastPose(_FastPoseHead):
    """FastPose with deformable convolutions in the backbone (DCN; DCNv2 if `modulated`); same shapes."""

    def __init__(self, num_layers: int, num_joints: int = 17, conv_dim: int = 128, modulated: bool = False) -> None:
        backbone = ResNet(num_layers, attention=True, deformable=True, modulated=modulated)
        super().__init__(backbone, 2048, num_joints, conv_dim)


class ClassicFastPose(FastPose):
    """The network of the first PyTorch release: 101 layers, 33 outputs, of which the first `num_joints` are returned.

    Its crops are 320x256.
    """

    def __init__(self, num_joints: int = 17) -> None:
        super().__init__(101, _CLASSIC_OUTPUTS)
        self.num_joints = _at_most(num_joints, _CLASSIC_OUTPUTS, "fastpose_classic")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, : self.num_joints]


class _MobileFeatures(nn.Module):
    def __init__(self, size: Literal["small", "large"]) -> None:
        super().__init__()
        # Imported here: torchvision takes seconds.
        from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

        build = {"small": mobilenet_v3_small, "large": mobilenet_v3_large}[size]
        self.features = build(weights=None).features

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)

    def inner_channels(self) -> list[InnerChannels]:
        from torchvision.ops.misc import SqueezeExcitation

        found = []
        for block in (layer.block for layer in self.features if hasattr(layer, "block")):
            attention = [layer for layer in block if isinstance(layer, SqueezeExcitation)]
            layers = [layer for layer in block if not isinstance(layer, SqueezeExcitation)]
            if len(layers) < 3:
                continue  # without an expansion
            (expansion, first, _), (depthwise, second, *_), (projection, _) = layers
            writers = (expansion, *(layer.fc2 for layer in attention))
            readers = (projection, *(layer.fc1 for layer in attention))
            found.append(InnerChannels(writers, second, readers, between=(first, depthwise, second)))
        return found


class FastPoseMobile(_FastPoseHead):
    """FastPose on MobileNetV3 (Howard et al., ICCV 2019), a light variant; same shapes."""

    def __init__(self, size: Literal["small", "large"], num_joints: int = 17, conv_dim: int = 128) -> None:
        super().__init__(_MobileFeatures(size), {"small": 576, "large": 960}[size], num_joints, conv_dim)


class FastPoseLite(nn.Module):
    """FastPose on EfficientNet-Lite0, with skip connections from the finer features; same shapes.

    A variant of this project. With skip connections, a small network does not have to encode positions in the coarsest
    map.
    """

    def __init__(self, num_joints: int = 17, conv_dim: int = 128) -> None:
        super().__init__()
        self.preact = EfficientNetLite0()
        fine, middle, coarse = self.preact.channels
        self.shuffle1 = nn.PixelShuffle(2)
        self.duc1 = DUC(coarse // 4 + middle, 1024)
        self.duc2 = DUC(256 + fine, 4 * conv_dim)
        self.conv_out = nn.Conv2d(conv_dim, num_joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine, middle, coarse = self.preact(x)
        x = self.duc1(torch.cat([self.shuffle1(coarse), middle], dim=1))
        return self.conv_out(self.duc2(torch.cat([x, fine], dim=1)))

    def inner_channels(self) -> list[InnerChannels]:
        return [self.duc1.read_by(self.duc2.conv), self.duc2.read_by(self.conv_out)]


def _deep_duc(in_channels: int, out_channels: int, convolutions: int) -> nn.Sequential:
    """(B, C, H, W) to (B, out, 2H, 2W): the shuffle first, then 3x3 convolutions on the larger map."""
    layers: list[nn.Module] = [nn.PixelShuffle(2)]
    channels = in_channels // 4
    for last in [False] * (convolutions - 1) + [True]:
        width = out_channels if last else channels
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _deep_ducs() -> list[nn.Sequential]:
    return [_deep_duc(2048, 1024, 4), _deep_duc(1024, 512, 2), _deep_duc(512, 256, 1)]


class FastPoseDUC(nn.Module):
    """FastPose with three deeper upsampling stages: (B, 3, H, W) to (B, num_joints, H/4, W/4)."""

    def __init__(self, num_layers: int, num_joints: int = 17, unshuffle: bool = False) -> None:
        super().__init__()
        self.preact = ResNet(num_layers, attention=True, unshuffle=unshuffle)
        self.duc1, self.duc2, self.duc3 = _deep_ducs()
        self.conv_out = nn.Conv2d(256, num_joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.duc3(self.duc2(self.duc1(self.preact(x)))))


class DenseFastPoseDUC(nn.Module):
    """Two upsampling branches on one deformable backbone: 17 body joints, then 32 points on the body surface.

    The first `num_joints` of the 49 outputs are returned.
    """

    def __init__(self, num_joints: int = 17) -> None:
        super().__init__()
        self.num_joints = _at_most(num_joints, _BODY_OUTPUTS + _DENSE_OUTPUTS, "fastpose_duc_dense")
        self.preact = ResNet(50, attention=True, deformable=True)
        self.duc = nn.Sequential(*_deep_ducs())
        self.conv_out = nn.Conv2d(256, _BODY_OUTPUTS, 3, padding=1)
        self.duc_dense = nn.Sequential(*_deep_ducs())
        self.conv_out_dense = nn.Conv2d(256, _DENSE_OUTPUTS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.preact(x)
        heatmaps = self.conv_out(self.duc(features))
        if self.num_joints > _BODY_OUTPUTS:
            heatmaps = torch.cat([heatmaps, self.conv_out_dense(self.duc_dense(features))], dim=1)
        return heatmaps[:, : self.num_joints]


def _at_most(num_joints: int, outputs: int, name: str) -> int:
    if not 1 <= num_joints <= outputs:
        raise UserError(f"{name} has {outputs} outputs; {num_joints} joints do not fit")
    return num_joints


SPECS = {
    "fastpose_r50": PoseSpec(partial(FastPose, num_layers=50)),
    "fastpose_r101": PoseSpec(partial(FastPose, num_layers=101)),
    "fastpose_r152": PoseSpec(partial(FastPose, num_layers=152)),
    "fastpose_r50_dcn": PoseSpec(partial(DeformableFastPose, num_layers=50)),
    "fastpose_duc_r50": PoseSpec(partial(FastPoseDUC, num_layers=50, unshuffle=True)),
    "fastpose_duc_r152": PoseSpec(partial(FastPoseDUC, num_layers=152)),
    "fastpose_duc_dense": PoseSpec(DenseFastPoseDUC, num_outputs=_BODY_OUTPUTS + _DENSE_OUTPUTS),
    "fastpose_mobile_small": PoseSpec(partial(FastPoseMobile, size="small")),
    "fastpose_mobile_large": PoseSpec(partial(FastPoseMobile, size="large")),
    "fastpose_lite0": PoseSpec(FastPoseLite),
    "fastpose_classic": PoseSpec(ClassicFastPose, input_size=(320, 256), num_outputs=_CLASSIC_OUTPUTS),
}
