"""Decoding of heatmaps into keypoints.

Shapes: N people, K joints, H x W heatmap cells. Keypoints are x y in image pixels, the frame of the boxes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.decodings import Norm

Array = np.ndarray


def decode_argmax(heatmaps: Tensor | Array, cropped_boxes: Array) -> tuple[Array, Array]:
    """Decode each map at its first maximum, moved a quarter cell towards its larger neighbours.

    A map without a positive value gives cell (0, 0). Maxima (px, py) are only moved if 1 < px < W - 1 and
    1 < py < H - 1.

    Args:
        heatmaps: (N, K, H, W) float, tensor on any device or array.
        cropped_boxes: (N, 4) x1 y1 x2 y2 that the maps cover, in image pixels.

    Returns:
        keypoints (N, K, 2) float32 in image pixels, scores (N, K) float32: the raw maxima.
    """
    maps = _as_tensor(heatmaps)
    cells, scores = _peaks(maps, border=1)
    return _to_image(cells.cpu().numpy(), cropped_boxes, *maps.shape[2:]), scores.float().cpu().numpy()


def decode_classic(heatmaps: Tensor | Array, enlarged_boxes: Array) -> tuple[Array, Array]:
    """Decode as the first PyTorch release (2018): maxima are also moved in cell 1, and 0.2 is added to all coordinates.

    Args:
        heatmaps: (N, K, H, W) float, tensor on any device or array.
        enlarged_boxes: (N, 4) x1 y1 x2 y2 in image pixels, as `classic_boxes` returns them: without the padding.

    Returns:
        keypoints (N, K, 2) float32 in image pixels, scores (N, K) float32: the raw maxima.
    """
    maps = _as_tensor(heatmaps)
    height, width = maps.shape[2:]
    peaks, scores = _peaks(maps, border=0)
    cells = peaks.cpu().numpy() + np.float32(0.2)
    boxes = np.asarray(enlarged_boxes, np.float32).reshape(-1, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    tall = np.maximum(size[:, 1], size[:, 0] * height / width)
    shown = np.stack([tall * width / height, tall], axis=1)
    corner = boxes[:, :2] - np.maximum((shown - size) / 2, 0)
    keypoints = cells * (tall / height)[:, None, None] + corner[:, None]
    return keypoints.astype(np.float32), scores.float().cpu().numpy()


def decode_offset(maps: Tensor | Array, cropped_boxes: Array) -> tuple[Array, Array]:
    """Decode each heatmap at its first maximum, plus the predicted offset in that cell.

    A map without a positive value gives cell (0, 0).

    Args:
        maps: (N, 3K, H, W) float: K heatmaps, then an x and a y offset map per joint, in cells.
        cropped_boxes: (N, 4) x1 y1 x2 y2 that the maps cover, in image pixels.

    Returns:
        keypoints (N, K, 2) float32 in image pixels, scores (N, K) float32: the raw maxima.
    """
    maps = _as_tensor(maps).float()
    n, channels, height, width = maps.shape
    k = channels // 3
    scores, px, py = _maxima(maps[:, :k])
    at = (py * width + px)[:, :, None, None].expand(n, k, 2, 1)
    offsets = maps[:, k:].reshape(n, k, 2, height * width).gather(3, at)[..., 0]
    cells = torch.stack([px, py], dim=2) + offsets * (scores > 0)[:, :, None]
    return _to_image(cells.cpu().numpy(), cropped_boxes, height, width), scores.cpu().numpy()


def decode_simcc(vectors: Tensor | Array, cropped_boxes: Array, columns: int) -> tuple[Array, Array]:
    """Decode joints that are classified along each axis (SimCC; Li et al., ECCV 2022), each at its first maximum.

    Bin i of n on an axis is at i / n of the side of the crop, without a half: as in MMPose, whose networks these are.

    Args:
        vectors: (N, K, columns + rows) float: the scores of the bins in x, then in y.
        cropped_boxes: (N, 4) x1 y1 x2 y2 that the crops cover, in image pixels.
        columns: number of bins in x.

    Returns:
        keypoints (N, K, 2) float32 in image pixels, scores (N, K) float32: the smaller of the two maxima.
    """
    scores_x, x = _as_tensor(vectors)[..., :columns].float().max(dim=2)
    scores_y, y = _as_tensor(vectors)[..., columns:].float().max(dim=2)
    rows = vectors.shape[2] - columns
    shares = torch.stack([x / columns, y / rows], dim=2).cpu().numpy()
    boxes = np.asarray(cropped_boxes, np.float32).reshape(-1, 1, 4)
    keypoints = boxes[..., :2] + shares * (boxes[..., 2:] - boxes[..., :2])
    return keypoints.astype(np.float32), torch.minimum(scores_x, scores_y).cpu().numpy()


def decode_integral(heatmaps: Tensor | Array, cropped_boxes: Array, norm: Norm = "sigmoid") -> tuple[Array, Array]:
    """Decode each normalised map as its expected cell (integral regression; Sun et al., ECCV 2018, and TPAMI 2022).

    Args:
        heatmaps: (N, K, H, W) float, tensor on any device or array.
        cropped_boxes: (N, 4) x1 y1 x2 y2 that the maps cover, in image pixels.
        norm: normalisation of the maps, see `normalise_heatmaps`.

    Returns:
        keypoints (N, K, 2) float32 in image pixels, scores (N, K) float32: the largest sigmoid, or 1 for other norms.
    """
    maps = _as_tensor(heatmaps).float()
    n, k, height, width = maps.shape
    flat = maps.reshape(n, k, height * width)
    scores = flat.sigmoid().amax(dim=2) if norm == "sigmoid" else torch.ones_like(flat[:, :, 0])
    grid = normalise_heatmaps(flat, norm).reshape(n, k, height, width)
    x = (grid.sum(dim=2) * torch.arange(width, device=grid.device)).sum(dim=2)
    y = (grid.sum(dim=3) * torch.arange(height, device=grid.device)).sum(dim=2)
    cells = torch.stack([x, y], dim=2)
    return _to_image(cells.cpu().numpy(), cropped_boxes, height, width), scores.cpu().numpy()


def normalise_heatmaps(flat: Tensor, norm: Norm) -> Tensor:
    """Weights of the cells of each map, for its expected cell: they sum to 1, or are all 0 where their sum is 0.

    Args:
        flat: (B, K, H * W) float32.
        norm: what is divided by its sum: the softmax or the sigmoid of a map, or (`divide_sum`) the map itself.
    """
    if norm == "softmax":
        weights = flat.softmax(dim=2)
    elif norm == "sigmoid":
        weights = flat.sigmoid()
    elif norm == "divide_sum":
        # Divide by the largest value first, so that sums stay finite. It cancels out, so it needs no gradient.
        peak = flat.detach().abs().amax(dim=2, keepdim=True)
        weights = flat / torch.where(peak == 0, torch.ones_like(peak), peak.clamp(min=torch.finfo(flat.dtype).tiny))
    else:
        raise ValueError(f"norm is {norm!r}; expected softmax, sigmoid or divide_sum")
    total = weights.sum(dim=2, keepdim=True)
    return weights / torch.where(total == 0, torch.ones_like(total), total)


def flip_back(heatmaps: Tensor, mirror: list[int]) -> Tensor:
    """Convert heatmaps of mirrored crops to heatmaps of the crops: mirror, swap paired joints, shift right by a cell.

    The shift aligns the cells of the two, which are half a stride off on each side. Column 0 keeps its value.

    Args:
        heatmaps: (N, K, H, W), of the mirrored crops.
        mirror: `Skeleton.mirror`.
    """
    mirrored = heatmaps.flip(3)[:, mirror]
    return torch.cat([mirrored[..., :1], mirrored[..., :-1]], dim=3)


def _maxima(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score, column and row (N, K) of the first maximum of each map; column and row are 0 if no value is positive."""
    n, k, height, width = maps.shape
    scores, index = maps.reshape(n, k, height * width).max(dim=2)
    index = index * (scores > 0)
    return scores, index % width, index // width


def _peaks(maps: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Cells (N, K, 2) of the maxima, moved a quarter cell towards the larger neighbours, and scores (N, K).

    Maxima are only moved if border < px < W - 1 and border < py < H - 1.
    """
    n, k, height, width = maps.shape
    scores, px, py = _maxima(maps)
    inside = (px > border) & (px < width - 1) & (py > border) & (py < height - 1)
    at = torch.where(inside, py * width + px, width + 1)  # any cell with four neighbours if not moved
    flat = maps.reshape(n, k, height * width)

    def neighbour(offset: int) -> Tensor:
        return flat.gather(2, (at + offset)[:, :, None])[:, :, 0]

    move = torch.stack(
        [torch.sign(neighbour(1) - neighbour(-1)), torch.sign(neighbour(width) - neighbour(-width))], dim=2
    )
    return torch.stack([px, py], dim=2).float() + 0.25 * move.float() * inside[:, :, None], scores


def _as_tensor(heatmaps: Tensor | Array) -> Tensor:
    return heatmaps if isinstance(heatmaps, Tensor) else torch.from_numpy(np.ascontiguousarray(heatmaps))


def _to_image(cells: Array, cropped_boxes: Array, height: int, width: int) -> Array:
    """(N, K, 2) heatmap cells to image pixels; the scale of the x axis is used for both axes."""
    boxes = np.asarray(cropped_boxes, np.float32).reshape(-1, 4)
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    scale = ((boxes[:, 2] - boxes[:, 0]) / width)[:, None, None]
    return (centre + (cells - np.array([width / 2, height / 2], np.float32)) * scale).astype(np.float32)
