"""The grid cells of a detector's output; each predicts objects near its centre."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_grid(height: int, width: int, stride: int) -> Tensor:
    """The cells of one output level, row by row.

    Args:
        height: of the network input, pixels, a multiple of the stride.
        width: of the network input, pixels, a multiple of the stride.
        stride: side of a cell, pixels.

    Returns:
        (N, 3) float32: centre x, centre y and side of each cell, in pixels of the input.
    """
    y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
    return torch.stack([(x + 0.5) * stride, (y + 0.5) * stride, torch.full(x.shape, float(stride))], -1).reshape(-1, 3)
