"""HRNet: parallel branches of four resolutions that exchange features.

Sun et al., Deep High-Resolution Representation Learning for Human Pose Estimation, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from pipeline.pose.networks.resnet import Bottleneck
from pipeline.pose.networks.spec import PoseSpec


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shape does not change."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


def _conv(in_channels: int, channels: int, size: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class _Exchange(nn.Module):
    """Four blocks per branch; then each of the first `num_outputs` branches is the sum of all, resized to it."""

    def __init__(self, widths: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(4))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(num_outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
            return nn.Sequential(*_conv(widths[source], widths[target], 1, relu=False), up)
        halvings = target - source
        return nn.Sequential(
            *(_conv(widths[source], widths[source], stride=2) for _ in range(halvings - 1)),
            _conv(widths[source], widths[target], stride=2, relu=False),
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        outputs = []
        for paths in self.fuse_layers:
            total = paths[0](maps[0])  # type: ignore[index]
            for path, x in zip(list(paths)[1:], maps[1:], strict=True):  # type: ignore[call-overload]
                total = total + path(x)
            outputs.append(self.relu(total))
        return outputs


class HRNet(nn.Module):
    """HRNet whose branches have `width` x 1, 2, 4 and 8 channels: (B, 3, H, W) to (B, num_joints, H/4, W/4)."""

    def __init__(self, width: int, num_joints: int = 17) -> None:
        super().__init__()
        widths = [width * 2**branch for branch in range(4)]
        self.conv1 = nn.Conv2d(3, 64, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Bottleneck(64, 64, first=True), *(Bottleneck(256, 64) for _ in range(3)))
        self.transition1 = nn.ModuleList([_conv(256, widths[0]), nn.Sequential(_conv(256, widths[1], stride=2))])
        self.stage2 = nn.ModuleList([_Exchange(widths[:2], 2)])
        self.transition2 = self._transition(widths[:3])
        self.stage3 = nn.ModuleList(_Exchange(widths[:3], 3) for _ in range(4))
        self.transition3 = self._transition(widths)
        self.stage4 = nn.ModuleList(_Exchange(widths, outputs) for outputs in (4, 4, 1))
        self.final_layer = nn.Conv2d(widths[0], num_joints, 1)

    @staticmethod
    def _transition(widths: Sequence[int]) -> nn.ModuleList:
        """The branches unchanged, and a new one of half the lowest resolution."""
        stay = [nn.Identity() for _ in widths[:-1]]
        return nn.ModuleList([*stay, nn.Sequential(_conv(widths[-2], widths[-1], stride=2))])

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer1(self.relu(self.bn2(self.conv2(x))))
        maps = [transition(x) for transition in self.transition1]
        for module in self.stage2:
            maps = module(maps)
        maps = [*maps, self.transition2[-1](maps[-1])]
        for module in self.stage3:
            maps = module(maps)
        maps = [*maps, self.transition3[-1](maps[-1])]
        for module in self.stage4:
            maps = module(maps)
        return self.final_layer(maps[0])


SPECS = {"hrnet_w32": PoseSpec(partial(HRNet, width=32))}
