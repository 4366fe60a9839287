"""SimplePose: a ResNet and three transposed convolutions.

Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from pipeline.pose.networks.resnet import ResNet
from pipeline.pose.networks.spec import PoseSpec


class SimplePose(nn.Module):
    """(B, 3, H, W) to (B, num_joints, H/4, W/4)."""

    def __init__(self, num_layers: int, num_joints: int = 17) -> None:
        super().__init__()
        self.preact = ResNet(num_layers)
        layers: list[nn.Module] = []
        for channels in (2048, 256, 256):
            layers += [
                nn.ConvTranspose2d(channels, 256, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(256),
                nn.ReLU(inplace=True),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, num_joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(self.preact(x)))


SPECS = {f"simplepose_r{layers}": PoseSpec(partial(SimplePose, num_layers=layers)) for layers in (50, 101, 152)}
