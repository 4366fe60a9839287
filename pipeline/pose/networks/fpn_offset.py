"""A ResNet with a feature pyramid that predicts a heatmap and an offset map for each joint.

Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; offsets beside heatmaps as in Papandreou et al.,
Towards Accurate Multi-person Pose Estimation in the Wild, CVPR 2017.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.pose.networks.resnet import ResNet
from pipeline.pose.networks.spec import PoseSpec


class FPNOffset(nn.Module):
    """(B, 3, H, W) to (B, 3 x num_joints, H/4, W/4): the heatmaps, then an x and a y offset map per joint.

    Offsets are in heatmap cells, from a cell to the joint: x0, y0, x1, y1, ...
    """

    def __init__(self, num_layers: int, num_joints: int = 17, width: int = 256) -> None:
        super().__init__()
        self.backbone = ResNet(num_layers)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (256, 512, 1024, 2048))
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.heatmap = nn.Conv2d(width, num_joints, 3, padding=1)
        self.offset = nn.Conv2d(width, 2 * num_joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [lateral(c) for lateral, c in zip(self.lateral, self.backbone.pyramid(x), strict=True)]
        top = levels[-1]
        for level in levels[-2::-1]:
            top = level + F.interpolate(top, size=level.shape[-2:], mode="nearest")
        features = self.smooth(top)
        return torch.cat([self.heatmap(features), self.offset(features)], dim=1)


SPECS = {"fpn_offset_r50": PoseSpec(partial(FPNOffset, num_layers=50), decodings=("offset",))}
