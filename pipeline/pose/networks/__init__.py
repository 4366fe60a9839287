"""Pose networks by name. Their parameters have the names of the published checkpoints, which load unchanged."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from pipeline.errors import UserError
from pipeline.pose.networks import fastpose, fpn_offset, hourglass, hrnet, movenet, simplepose
from pipeline.pose.networks.spec import PoseSpec

POSE_NETWORKS: dict[str, PoseSpec] = {
    **fastpose.SPECS,
    **simplepose.SPECS,
    **hrnet.SPECS,
    **hourglass.SPECS,
    **fpn_offset.SPECS,
    **movenet.SPECS,
}


def build_pose_model(name: str, num_joints: int = 17, **options: Any) -> nn.Module:
    """A pose network with random weights: (B, 3, H, W) mean-subtracted RGB to (B, num_joints, H/4, W/4) heatmaps.

    `fpn_offset_r50` and `movenet_pyramid` also return offsets, 3 x num_joints channels in total. `fastpose_classic` and
    `fastpose_duc_dense` have 33 and 49 outputs, of which the first `num_joints` are returned.

    Args:
        name: a key of `POSE_NETWORKS`.
        num_joints: number of heatmaps.
        options: of the network's class, for example `conv_dim=256`, `modulated=True`, `stacks=8`.

    Raises:
        UserError: an unknown name; the message suggests the nearest.

    >>> sum(p.numel() for p in build_pose_model("fastpose_r50").parameters())
    40577745
    """
    return pose_spec(name).build(num_joints=num_joints, **options)


def pose_spec(name: str) -> PoseSpec:
    """The spec of a network.

    Raises:
        UserError: an unknown name; the message suggests the nearest.
    """
    if name not in POSE_NETWORKS:
        close = difflib.get_close_matches(name, POSE_NETWORKS, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"--pose.name {name}: no such network; {hint}known: {', '.join(POSE_NETWORKS)}")
    return POSE_NETWORKS[name]
