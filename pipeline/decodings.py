"""Names of heatmap decodings and normalisations in settings, catalogue and weights files. Imports `typing` alone."""

from __future__ import annotations

from typing import Literal

# The decodings that networks are trained for.
TrainedDecode = Literal["argmax", "integral", "combined", "offset"]
Decode = Literal[TrainedDecode, "classic"]
# How a heatmap becomes weights that sum to 1, for its expected cell.
Norm = Literal["sigmoid", "softmax", "divide_sum"]
