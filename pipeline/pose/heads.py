"""Heads: how the output of a network is mirrored back after a flip, averaged over several views, and decoded.

A view is one run of one network on one crop of each person: unchanged, mirrored, wider, or at another resolution.
Heatmaps of several views are averaged at the same positions of the image; coordinates are averaged directly. The first
view is the frame of the average: it must cover the largest part of the image, and must not depend on the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.decodings import Norm
from pipeline.errors import UserError
from pipeline.pose.heatmap import decode_argmax, decode_classic, decode_integral, decode_offset, decode_simcc, flip_back

# Number of regressed joints of a combined network, by the number of all joints. They are the last joints: face and
# hands, or only the hands.
COMBINED_REGRESSED = {68: 42, 133: 110, 136: 110}

# `flip_back` shifts mirrored maps by one cell; the exact shift is 3/4 of a cell, because a cell has 4 pixels.
_FLIP_REMAINDER = 0.25


class View(NamedTuple):
    """Output (N, C, H, W) of a network, and the boxes (N, 4) that it covers, x1 y1 x2 y2 in image pixels."""

    maps: Tensor
    boxes: np.ndarray


class Head(ABC):
    """The interpretation of a network's output.

    Attributes:
        kind: kind of keypoint scores; pose NMS has constants for each.
    """

    kind: ClassVar[Literal["heatmap", "regression"]] = "heatmap"

    @abstractmethod
    def __str__(self) -> str:
        """Its name in settings, with its options."""

    def channels(self, num_joints: int) -> int:
        """Number of channels of the network's output.

        Raises:
            UserError: the head does not support this number of joints.
        """
        return num_joints

    def flip_back(self, maps: Tensor, mirror: list[int]) -> Tensor:
        """Convert the output for mirrored crops to the output for the crops; `mirror` is `Skeleton.mirror`."""
        return flip_back(maps, mirror)

    @abstractmethod
    def decode(self, views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, K, 2) in image pixels and scores (N, K), from all views of the same N people."""


@dataclass(frozen=True)
class ArgmaxHead(Head):
    """Heatmaps, decoded at their maxima; with `classic` as in the first PyTorch release."""

    classic: bool = False

    def __str__(self) -> str:
        return "classic" if self.classic else "argmax"

    def decode(self, views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
        maps, boxes = _average(views)
        return decode_classic(maps, boxes) if self.classic else decode_argmax(maps, boxes)


@dataclass(frozen=True)
class IntegralHead(Head):
    """Maps that are decoded as the expected cell (integral regression)."""

    kind = "regression"
    norm: Norm = "sigmoid"

    def __str__(self) -> str:
        return f"integral ({self.norm})"

    def decode(self, views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
        decoded = [decode_integral(maps, boxes, self.norm) for maps, boxes in views]
        return np.mean([keypoints for keypoints, _ in decoded], axis=0), np.mean([s for _, s in decoded], axis=0)


@dataclass(frozen=True)
class CombinedHead(Head):
    """Heatmaps for the body, and integral regression for the last joints: face and hands."""

    kind = "regression"
    norm: Norm = "sigmoid"

    def __str__(self) -> str:
        return f"combined ({self.norm})"

    def channels(self, num_joints: int) -> int:
        if num_joints not in COMBINED_REGRESSED:
            *others, last = map(str, COMBINED_REGRESSED)
            joints = f"{', '.join(others)} or {last}"
            raise UserError(f"--pose.decode combined needs {joints} joints; the network has {num_joints}")
        return num_joints

    def decode(self, views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
        body = views[0].maps.shape[1] - COMBINED_REGRESSED[views[0].maps.shape[1]]
        heatmaps = ArgmaxHead().decode([View(maps[:, :body], boxes) for maps, boxes in views])
        integral = IntegralHead(self.norm).decode([View(maps[:, body:], boxes) for maps, boxes in views])
        return np.concatenate([heatmaps[0], integral[0]], axis=1), np.concatenate([heatmaps[1], integral[1]], axis=1)


@dataclass(frozen=True)
class OffsetHead(Head):
    """Heatmaps, and the offset from each cell to the joint, in cells."""

    def __str__(self) -> str:
        return "offset"

    def channels(self, num_joints: int) -> int:
        return 3 * num_joints

    def flip_back(self, maps: Tensor, mirror: list[int]) -> Tensor:
        k = len(mirror)
        heatmaps = flip_back(maps[:, :k], mirror)
        dx = -flip_back(maps[:, k::2], mirror) - _FLIP_REMAINDER
        dy = flip_back(maps[:, k + 1 :: 2], mirror)
        return torch.cat([heatmaps, torch.stack([dx, dy], dim=2).flatten(1, 2)], dim=1)

    def decode(self, views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
        reference = views[0]
        scaled = []
        for maps, boxes in views:
            k = maps.shape[1] // 3
            ratio = _cell_px(View(maps, boxes)) / _cell_px(reference) * _finer(views, reference)
            ratio_N = torch.from_numpy(ratio).to(maps)[:, None, None, None]
            scaled.append(View(torch.cat([maps[:, :k], maps[:, k:] * ratio_N], dim=1), boxes))
        return decode_offset(*_average(scaled))


@dataclass(frozen=True)
class SimccHead(Head):
    """Joints that are classified along each axis: x bins, then y bins, of exported networks.

    Attributes:
        input_size: height and width of the crops, pixels.
    """

    input_size: tuple[int, int]

    def __str__(self) -> str:
        return "simcc"

    def columns(self, bins: int) -> int:
        """The number of x bins of all bins: both axes have as many bins for each pixel."""
        height, width = self.input_size
        return bins * width // (height + width)

    def flip_back(self, maps: Tensor, mirror: list[int]) -> Tensor:
        columns = self.columns(maps.shape[2])
        swapped = maps[:, mirror]
        return torch.cat([swapped[..., :columns].flip(2), swapped[..., columns:]], dim=2)

    def decode(self, views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
        vectors = torch.stack([maps for maps, _ in views]).mean(dim=0)  # settings allow no other scales and networks
        return decode_simcc(vectors, views[0].boxes, self.columns(vectors.shape[2]))


def _average(views: Sequence[View]) -> View:
    """The mean of all maps in the frame of the first view and the resolution of the finest view.

    Each cell is the mean of the views that cover it.
    """
    if len(views) == 1:
        return views[0]
    reference = views[0]
    size = tuple(round(side * _finer(views, reference)) for side in reference.maps.shape[2:])
    framed = [_in_frame(view, reference.boxes, size) for view in views]
    total = torch.stack([maps * mask for maps, mask in framed]).sum(dim=0)
    count = torch.stack([mask.expand(len(maps), 1, *size) for maps, mask in framed]).sum(dim=0)
    return View(total / count.clamp(min=1), reference.boxes)


def _finer(views: Sequence[View], reference: View) -> float:
    """The number of cells on a side of the finest view, relative to the reference."""
    return max(view.maps.shape[3] for view in views) / reference.maps.shape[3]


def _cell_px(view: View) -> np.ndarray:
    """(N,) side of a heatmap cell in image pixels."""
    return np.maximum(view.boxes[:, 2] - view.boxes[:, 0], 1e-6) / view.maps.shape[3]


def _in_frame(view: View, boxes: np.ndarray, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Resample the maps of a view to maps of `size` that cover other boxes of the same people, with bilinear weights.

    As in decoding, cell p of a map that covers a box is at centre + (p - W / 2) x box width / W.

    Returns:
        maps (N, C, *size), and a mask (N or 1, 1, *size): 1 in cells that the view covers, else 0.
    """
    height, width = view.maps.shape[2:]
    if view.boxes is boxes and (height, width) == size:
        return view.maps, torch.ones(1, 1, *size, device=view.maps.device)
    ratio = np.maximum(boxes[:, 2] - boxes[:, 0], 1e-6) / size[1] / _cell_px(view)
    apart = (boxes[:, :2] + boxes[:, 2:] - view.boxes[:, :2] - view.boxes[:, 2:]) / 2 / _cell_px(view)[:, None]
    grid = np.empty((len(boxes), *size, 2), np.float32)
    for axis, (cells, own) in enumerate(((size[1], width), (size[0], height))):
        at = ratio[:, None] * (np.arange(cells) - cells / 2) + own / 2 + apart[:, axis, None]
        lines = 2 * at / (own - 1) - 1
        grid[..., axis] = lines[:, None, :] if axis == 0 else lines[:, :, None]
    places = torch.from_numpy(grid).to(view.maps.device)
    mask = (places.abs() <= 1).all(dim=-1)[:, None].to(view.maps.dtype)
    return F.grid_sample(view.maps.float(), places, padding_mode="border", align_corners=True), mask
