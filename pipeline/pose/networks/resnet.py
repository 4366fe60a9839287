"""ResNet in the variants that are backbones of the pose networks.

He et al., Deep Residual Learning, CVPR 2016 (v1.5: the stride is on the 3x3); Hu et al., Squeeze-and-Excitation
Networks, CVPR 2018; Dai et al., Deformable Convolutional Networks, ICCV 2017; Zhu et al., Deformable ConvNets v2, 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.pose.networks.pruning import InnerChannels

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_TAPS = 9


@torch.fx.wrap  # one node when traced: the argument checks of the operation cannot be traced
def _deform_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, stride: int, mask: Tensor | None) -> Tensor:
    from torchvision.ops import deform_conv2d  # imported here: torchvision takes seconds

    return deform_conv2d(x, offsets, weight, stride=stride, padding=1, mask=mask)


class SqueezeExcite(nn.Module):
    """Channel attention with reduction 1: (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class DeformableConv(nn.Module):
    """A deformable 3x3 convolution: (B, C, H, W) and offsets to (B, width, H/stride, W/stride).

    Offsets have 18 channels: (dy, dx) per tap. If modulated, 9 more are the logits of a factor per tap. Sampling always
    runs in float32: the kernels of torchvision do not support bfloat16.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(width, width, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor, moves: Tensor, modulated: bool) -> Tensor:
        moves = moves.float()
        mask = moves[:, 2 * _TAPS :].sigmoid() if modulated else None
        offsets = moves[:, : 2 * _TAPS]
        y = _deform_conv2d(x.float(), offsets, self.weight.float(), self.stride, mask)
        return y.to(x.dtype)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to 4 x `width` channels; the first of a stage has a convolution as shortcut."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        first: bool = False,
        attention: bool = False,
        unshuffle: bool = False,
        deformable: bool = False,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.modulated = modulated
        self.conv2_offset: nn.Module | None = None
        self.conv2: nn.Module
        if deformable:
            moves = (3 if modulated else 2) * _TAPS
            self.conv2_offset = nn.Conv2d(width, moves, 3, stride, padding=1)
            for parameter in self.conv2_offset.parameters():
                nn.init.zeros_(parameter)  # training starts as an ordinary convolution
            self.conv2 = DeformableConv(width, stride)
        elif unshuffle and stride == 2:
            self.conv2 = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, width, 3, padding=1, bias=False))
        else:
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.se = SqueezeExcite(out_channels) if first and attention else None
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if first
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(y) if self.conv2_offset is None else self.conv2(y, self.conv2_offset(y), self.modulated)
        y = self.relu(self.bn2(y))
        y = self.bn3(self.conv3(y))
        if self.se is not None:
            y = self.se(y)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    def inner_channels(self) -> list[InnerChannels]:
        """Those before and after the 3x3 convolution, if that is an ordinary one."""
        if not isinstance(self.conv2, nn.Conv2d):
            return []
        return [
            InnerChannels((self.conv1,), self.bn1, (self.conv2,), between=(self.bn1,)),
            InnerChannels((self.conv2,), self.bn2, (self.conv3,), between=(self.bn2,)),
        ]


class ResNet(nn.Module):
    """(B, 3, H, W) to (B, 2048, H/32, W/32).

    Args:
        num_layers: 50, 101 or 152.
        attention: squeeze-and-excitation in the first block of each stage, after its last BatchNorm.
        unshuffle: downsample by PixelUnshuffle instead of a 3x3 with stride 2.
        deformable: deformable 3x3 in all blocks of stages 2 to 4.
        modulated: deformable convolutions have factors on their taps (DCNv2).
    """

    def __init__(
        self,
        num_layers: int,
        attention: bool = False,
        unshuffle: bool = False,
        deformable: bool = False,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)

        def stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
            moved = deformable and stride == 2
            options = {"unshuffle": unshuffle, "deformable": moved, "modulated": modulated and moved}
            first = Bottleneck(in_channels, width, stride, first=True, attention=attention, **options)
            return nn.Sequential(first, *(Bottleneck(4 * width, width, **options) for _ in range(blocks - 1)))

        first, second, third, fourth = BLOCKS[num_layers]
        self.layer1 = stage(64, 64, first, stride=1)
        self.layer2 = stage(256, 128, second, stride=2)
        self.layer3 = stage(512, 256, third, stride=2)
        self.layer4 = stage(1024, 512, fourth, stride=2)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Features of all four stages: 256, 512, 1024 and 2048 channels at 1/4, 1/8, 1/16 and 1/32."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c2, c3, c4, self.layer4(c4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.pyramid(x)[-1]
