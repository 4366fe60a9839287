"""The features of EfficientNet-Lite0: Tan and Le, EfficientNet, ICML 2019, simplified for mobile devices by Liu, 2020.

All activations are ReLU6, and there is no squeeze-and-excitation. Parameter names are those of this project.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from pipeline.pose.networks.pruning import InnerChannels

_STEM = 32
_EPS = 1e-3


class _Stage(NamedTuple):
    """`blocks` inverted residuals with an expansion of `expand`; the first has the stride."""

    expand: int
    channels: int
    blocks: int
    stride: int
    kernel: int


_STAGES = (
    _Stage(1, 16, 1, 1, 3),
    _Stage(6, 24, 2, 2, 3),
    _Stage(6, 40, 2, 2, 5),
    _Stage(6, 80, 3, 2, 3),
    _Stage(6, 112, 3, 1, 5),
    _Stage(6, 192, 4, 2, 5),
    _Stage(6, 320, 1, 1, 3),
)
_RETURNED_STAGES = (2, 4, 6)  # the last ones at 1/8, 1/16 and 1/32


def _layer(
    in_channels: int, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, normalisation and ReLU6."""
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels, eps=_EPS)]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if activation else nn.Sequential(*layers)


class _Block(nn.Module):
    """Inverted residual: expansion, depthwise convolution, projection; with a shortcut if the shapes match."""

    def __init__(self, in_channels: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        width = in_channels * stage.expand
        layers = [] if stage.expand == 1 else [_layer(in_channels, width, 1)]
        layers.append(_layer(width, width, stage.kernel, stride, groups=width))
        layers.append(_layer(width, stage.channels, 1, activation=False))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)

    def inner_channels(self) -> list[InnerChannels]:
        """Those that the expansion makes and the projection reads; none without an expansion."""
        convolutions = [layer for layer in self.block.modules() if isinstance(layer, nn.Conv2d)]
        if len(convolutions) < 3:
            return []
        first, second, _ = [layer for layer in self.block.modules() if isinstance(layer, nn.BatchNorm2d)]
        expansion, depthwise, projection = convolutions
        return [InnerChannels((expansion,), second, (projection,), between=(first, depthwise, second))]


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W) to features (B, 40, H/8, W/8), (B, 112, H/16, W/16) and (B, 320, H/32, W/32)."""

    channels = tuple(_STAGES[i].channels for i in _RETURNED_STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, _STEM, 3, 2)
        stages, channels = [], _STEM
        for stage in _STAGES:
            blocks = []
            for i in range(stage.blocks):
                blocks.append(_Block(channels, stage, stage.stride if i == 0 else 1))
                channels = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _RETURNED_STAGES:
                features.append(x)
        return features[0], features[1], features[2]
