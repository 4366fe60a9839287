"""Which pose each person has: crops, networks, heatmap decoding."""

from pipeline.pose.networks import build_pose_model

__all__ = ["build_pose_model"]
