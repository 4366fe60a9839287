"""Poses of detected people: crops, networks and the decoding of heatmaps."""

from pipeline.pose.networks import build_pose_model

__all__ = ["build_pose_model"]
