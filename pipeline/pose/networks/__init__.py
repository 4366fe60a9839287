"""Pose networks by name. Parameter names are those of the published checkpoints, so these load unchanged."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from pipeline.errors import UserError
from pipeline.pose.networks.fastpose import (
    ClassicFastPose,
    DeformableFastPose,
    DenseFastPoseDUC,
    FastPose,
    FastPoseDUC,
    FastPoseLite,
    FastPoseMobile,
)
from pipeline.pose.networks.fpn_offset import FPNOffset
from pipeline.pose.networks.hourglass import Hourglass
from pipeline.pose.networks.hrnet import HRNet
from pipeline.pose.networks.simplepose import SimplePose

POSE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "fastpose_r50": partial(FastPose, num_layers=50),
    "fastpose_r101": partial(FastPose, num_layers=101),
    "fastpose_r152": partial(FastPose, num_layers=152),
    "fastpose_r50_dcn": partial(DeformableFastPose, num_layers=50),
    "fastpose_duc_r50": partial(FastPoseDUC, num_layers=50, unshuffle=True),
    "fastpose_duc_r152": partial(FastPoseDUC, num_layers=152),
    "fastpose_duc_dense": DenseFastPoseDUC,
    "fastpose_mobile_small": partial(FastPoseMobile, size="small"),
    "fastpose_mobile_large": partial(FastPoseMobile, size="large"),
    "fastpose_lite0": FastPoseLite,
    "fastpose_classic": ClassicFastPose,
    "simplepose_r50": partial(SimplePose, num_layers=50),
    "simplepose_r101": partial(SimplePose, num_layers=101),
    "simplepose_r152": partial(SimplePose, num_layers=152),
    "hrnet_w32": partial(HRNet, width=32),
    "hourglass": Hourglass,
    "fpn_offset_r50": partial(FPNOffset, num_layers=50),
}


def build_pose_model(name: str, num_joints: int = 17, **options: Any) -> nn.Module:
    """A pose network with random weights: (B, 3, H, W) mean-subtracted RGB to (B, num_joints, H/4, W/4) heatmaps.

    `fpn_offset_r50` gives offsets after the heatmaps, 3 x num_joints channels in all. `fastpose_classic` and
    `fastpose_duc_dense` have 33 and 49 outputs whatever `num_joints` is, and give the first of them.

    Args:
        name: a key of `POSE_MODELS`.
        num_joints: heatmaps of the output.
        options: of the network's class, e.g. `conv_dim=256`, `modulated=True`, `stacks=8`.

    Raises:
        UserError: an unknown name; the text suggests the nearest.

    >>> sum(p.numel() for p in build_pose_model("fastpose_r50").parameters())
    40577745
    """
    if name not in POSE_MODELS:
        close = difflib.get_close_matches(name, POSE_MODELS, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"pose.name is {name!r}: no such network; {hint}Known: {', '.join(POSE_MODELS)}")
    return POSE_MODELS[name](num_joints=num_joints, **options)
