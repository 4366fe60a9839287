"""Training targets: Gaussian heatmaps, relative positions of joints, offset maps."""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_CELLS = 2.0
_RADIUS_SIGMAS = 3.0


def gaussian_heatmaps(keypoints: Tensor, labelled: Tensor, size: tuple[int, int], stride: int = 4) -> Tensor:
    """Gaussians of sigma 2 cells around cell int(x / stride + 0.5), cut off at 3 sigmas.

    Args:
        keypoints: (B, K, 2) x y in pixels of the network's input.
        labelled: (B, K) bool; maps of other joints are 0.
        size: height and width of the heatmaps, cells.

    Returns:
        (B, K, height, width) float32 in 0..1.
    """
    height, width = size
    centre = torch.floor(keypoints / stride + 0.5)
    x = torch.arange(width, device=keypoints.device) - centre[..., 0, None]
    y = torch.arange(height, device=keypoints.device) - centre[..., 1, None]
    radius = _RADIUS_SIGMAS * SIGMA_CELLS

    def gaussian(distance: Tensor) -> Tensor:
        return torch.exp(-(distance**2) / (2 * SIGMA_CELLS**2)) * (distance.abs() <= radius)

    return gaussian(y)[..., :, None] * gaussian(x)[..., None, :] * labelled[..., None, None]


def on_heatmap(keypoints: Tensor, labelled: Tensor, size: tuple[int, int], stride: int = 4) -> Tensor:
    """(B, K) bool: labelled, and the cell lies on the heatmap; losses ignore other joints."""
    cell = torch.floor(keypoints / stride + 0.5)
    limit = torch.tensor(size[::-1], device=keypoints.device)
    return labelled & ((cell >= 0) & (cell < limit)).all(dim=-1)


def relative_positions(keypoints: Tensor, input_size: tuple[int, int]) -> Tensor:
    """(B, K, 2) x / W - 0.5 and y / H - 0.5 of joints (B, K, 2) x y in pixels of the network's input."""
    height, width = input_size
    return keypoints / torch.tensor([width, height], device=keypoints.device, dtype=keypoints.dtype) - 0.5


def offset_maps(keypoints: Tensor, size: tuple[int, int], stride: int = 4) -> Tensor:
    """(B, 2K, height, width): offset in cells from each cell to the joint, in the order x0, y0, x1, y1, ..."""
    height, width = size
    cells = keypoints / stride
    dx = cells[..., 0, None, None] - torch.arange(width, device=keypoints.device)
    dy = cells[..., 1, None, None] - torch.arange(height, device=keypoints.device)[:, None]
    return torch.stack([dx.expand(-1, -1, height, width), dy.expand(-1, -1, height, width)], dim=2).flatten(1, 2)
