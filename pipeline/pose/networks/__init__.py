"""Pose networks by name. Parameter names are those of the published checkpoints, so these load unchanged."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from pipeline.pose.networks.fastpose import FastPose, FastPoseMobile

POSE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "fastpose_r50": partial(FastPose, num_layers=50),
    "fastpose_mobile_small": partial(FastPoseMobile, size="small"),
    "fastpose_mobile_large": partial(FastPoseMobile, size="large"),
}


def build_pose_model(name: str, num_joints: int = 17, **options: Any) -> nn.Module:
    """A pose network with random weights: (B, 3, H, W) mean-subtracted RGB to (B, num_joints, H/4, W/4) heatmaps.

    Args:
        name: a key of `POSE_MODELS`.
        num_joints: channels of the output.
        options: of the network's class, e.g. `conv_dim=256`.

    Raises:
        ValueError: an unknown name; the text suggests the nearest.

    >>> sum(p.numel() for p in build_pose_model("fastpose_r50").parameters())
    40577745
    """
    if name not in POSE_MODELS:
        close = difflib.get_close_matches(name, POSE_MODELS, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"pose.name is {name!r}: no such network; {hint}Known: {', '.join(POSE_MODELS)}")
    return POSE_MODELS[name](num_joints=num_joints, **options)
