"""Stacked hourglass: encoder-decoders one after another, each with heatmaps as output.

Newell et al., Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.pose.networks.spec import PoseSpec


class Residual(nn.Module):
    """Pre-activated bottleneck: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
        )
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class _Down(nn.Module):
    """One level of an hourglass around the next lower one; the shape does not change."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.skip = Residual(width, width)
        self.before = Residual(width, width)
        self.inner = _Down(depth - 1, width) if depth > 1 else Residual(width, width)
        self.after = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        low = self.after(self.inner(self.before(F.max_pool2d(x, 2))))
        skip = self.skip(x)
        return skip + F.interpolate(low, size=skip.shape[-2:], mode="nearest")


class Hourglass(nn.Module):
    """(B, 3, H, W) to (B, num_joints, H/4, W/4), the heatmaps of the last of `stacks` hourglasses.

    Args:
        stacks: hourglasses one after another.
        depth: halvings inside each.
        width: channels throughout.
    """

    def __init__(self, num_joints: int = 17, stacks: int = 4, depth: int = 4, width: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            Residual(64, 128),
            nn.MaxPool2d(2),
            Residual(128, 128),
            Residual(128, width),
        )
        self.hourglasses = nn.ModuleList(_Down(depth, width) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(
                Residual(width, width), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            )
            for _ in range(stacks)
        )
        self.heatmaps = nn.ModuleList(nn.Conv2d(width, num_joints, 1) for _ in range(stacks))
        self.from_features = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.from_heatmaps = nn.ModuleList(nn.Conv2d(num_joints, width, 1) for _ in range(stacks - 1))

    def intermediate(self, x: Tensor) -> list[Tensor]:
        """Heatmaps of all hourglasses, first to last; all of them are trained."""
        x = self.stem(x)
        outputs = []
        for i, (hourglass, features, heatmap) in enumerate(
            zip(self.hourglasses, self.features, self.heatmaps, strict=True)
        ):
            y = features(hourglass(x))
            outputs.append(heatmap(y))
            if i < len(self.from_features):
                x = x + self.from_features[i](y) + self.from_heatmaps[i](outputs[-1])
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.intermediate(x)[-1]


def _intermediate(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    assert isinstance(network, Hourglass)
    return network.intermediate(inputs)


SPECS = {"hourglass": PoseSpec(Hourglass, training_outputs=_intermediate)}
