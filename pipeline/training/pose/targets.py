"""What a network is trained towards: Gaussians on heatmaps, places of joints, offsets to them."""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_CELLS = 2.0
_RADIUS_SIGMAS = 3.0


def gaussian_heatmaps(keypoints: Tensor, labelled: Tensor, size: tuple[int, int], stride: int = 4) -> Tensor:
    """Gaussians of sigma 2 cells around the cell int(x / stride + 0.5), cut off at 3 sigmas.

    Args:
        keypoints: (B, K, 2) x y in pixels of the network's input.
        labelled: (B, K) bool; maps of other joints are 0.
        size: height and width of the heatmaps.

    Returns:
        (B, K, height, width) float32 in 0..1.
    """
    height, width = size
    centre = torch.floor(keypoints / stride + 0.5)
    x = torch.arange(width, device=keypoints.device) - centre[..., 0, None]
    y = torch.arange(height, device=keypoints.device) - centre[..., 1, None]
    radius = _RADIUS_SIGMAS * SIGMA_CELLS

    def bell(distance: Tensor) -> Tensor:
        return torch.exp(-(distance**2) / (2 * SIGMA_CELLS**2)) * (distance.abs() <= radius)

    return bell(y)[..., :, None] * bell(x)[..., None, :] * labelled[..., None, None]


def on_heatmap(keypoints: Tensor, labelled: Tensor, size: tuple[int, int], stride: int = 4) -> Tensor:
    """(B, K) bool: labelled, and its cell lies on the heatmap; other joints have no part in a loss."""
    cell = torch.floor(keypoints / stride + 0.5)
    limit = torch.tensor(size[::-1], device=keypoints.device)
    return labelled & ((cell >= 0) & (cell < limit)).all(dim=-1)


def relative_places(keypoints: Tensor, input_size: tuple[int, int]) -> Tensor:
    """(B, K, 2) x / W - 0.5 and y / H - 0.5 of joints in pixels of the network's input."""
    height, width = input_size
    return keypoints / torch.tensor([width, height], device=keypoints.device, dtype=keypoints.dtype) - 0.5


def offset_maps(keypoints: Tensor, size: tuple[int, int], stride: int = 4) -> Tensor:
    """(B, 2K, height, width): how far, in cells, each cell is from the joint: x0, y0, x1, y1, ..."""
    height, width = size
    place = keypoints / stride
    dx = place[..., 0, None, None] - torch.arange(width, device=keypoints.device)
    dy = place[..., 1, None, None] - torch.arange(height, device=keypoints.device)[:, None]
    return torch.stack([dx.expand(-1, -1, height, width), dy.expand(-1, -1, height, width)], dim=2).flatten(1, 2)
