"""Names of heatmap decodings and normalisations in settings, catalogue and weights files. Imports `typing` alone."""

from __future__ import annotations

from typing import Literal

# The decodings that networks are trained for.
TrainedDecode = Literal["argmax", "integral", "combined", "offset"]
Decode = Literal[TrainedDecode, "classic", "simcc"]
# What is done to crops, RGB in 0..1: the mean is subtracted as AlphaPose's networks expect it, or ImageNet's mean and
# standard deviation are used, as MMPose's and ViTPose's networks expect it.
Pixels = Literal["mean", "imagenet"]
# How a heatmap becomes weights that sum to 1, for its expected cell.
Norm = Literal["sigmoid", "softmax", "divide_sum"]
