"""Posemill: image collections in, human keypoint tables out."""
