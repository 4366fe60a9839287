"""Losses of the family. Shapes: B people, K joints, H x W heatmap cells; `known` (B, K) masks unlabelled joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.pose.heads import COMBINED_REGRESSED
from pipeline.training.distributed import over_processes
from pipeline.training.pose.targets import gaussian_heatmaps, offset_maps, on_heatmap, relative_places

Decode = Literal["argmax", "integral", "combined", "offset"]
Norm = Literal["sigmoid", "softmax", "divide_sum"]

_AMPLITUDE = 2.0
_HEATMAP_SHARE, _INTEGRAL_SHARE, _OFFSET_SHARE = 100.0, 0.01, 0.1


def heatmap_loss(heatmaps: Tensor, target: Tensor, known: Tensor, foreground: float = 0.0) -> Tensor:
    """0.5 x mean squared error over all cells of all maps; maps of unknown joints count as right.

    Args:
        foreground: a cell counts 1 + foreground x target times. Joints are a hundredth of a map: a network that starts
            from random weights learns for long that maps are empty, unless the joints' cells weigh more.
    """
    wrong = (heatmaps - target).square() * known[..., None, None]
    return 0.5 * (wrong * (1 + foreground * target)).mean()


class _Expectation(torch.autograd.Function):
    """Expected cell of normalised maps, with the paper's amplitude symmetric gradient (TPAMI 2022, section 3.2).

    The gradient of a coordinate with respect to a cell does not grow with the cell's distance from it: it is + 2 at or
    beyond the coordinate, - 2 before it.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        cells = torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype)
        place = (weights * cells).sum(dim=-1, keepdim=True)
        ctx.save_for_backward(cells, place)
        return place[..., 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        cells, place = ctx.saved_tensors
        side = torch.where(cells >= place, _AMPLITUDE, -_AMPLITUDE)
        return gradients[0][..., None] * side


def expected_places(heatmaps: Tensor, norm: Norm) -> Tensor:
    """(B, K, 2) expected x / W - 0.5 and y / H - 0.5 of each map, for training."""
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.flatten(2)
    if norm == "softmax":
        weights = flat.softmax(dim=2)
    else:
        weights = flat.sigmoid() if norm == "sigmoid" else flat
        total = weights.sum(dim=2, keepdim=True)
        weights = weights / torch.where(total == 0, torch.ones_like(total), total)
    grid = weights.view_as(heatmaps)
    x = _Expectation.apply(grid.sum(dim=2)) / width - 0.5
    y = _Expectation.apply(grid.sum(dim=3)) / height - 0.5
    return torch.stack([x, y], dim=2)


def integral_loss(heatmaps: Tensor, places: Tensor, known: Tensor, norm: Norm) -> Tensor:
    """Sum of |expected - true| over the known coordinates, per person; `places` as `relative_places` gives them."""
    distance = (expected_places(heatmaps, norm) - places).abs() * known[..., None]
    return distance.sum() / len(heatmaps)


def offset_loss(offsets: Tensor, target: Tensor, heatmap_target: Tensor, known: Tensor) -> Tensor:
    """Mean |offset - true|, in cells, over the cells within one sigma of a known joint."""
    near = ((heatmap_target > 0.6) & known[..., None, None]).repeat_interleave(2, dim=1)
    return ((offsets - target).abs() * near).sum() / over_processes(near.sum().float())


@dataclass(frozen=True)
class PoseLoss:
    """The loss of a batch for a head, summed over a network's intermediate outputs.

    Attributes:
        input_size: height and width of the network's input.
        decode, norm: the head; see `pipeline.pose.heads`.
        teacher_share: how much of the loss is the distance from a teacher; the labels have the rest.
        foreground: see `heatmap_loss`.
    """

    input_size: tuple[int, int]
    decode: Decode = "argmax"
    norm: Norm = "sigmoid"
    teacher_share: float = 0.0
    foreground: float = 0.0

    def __call__(
        self, outputs: Sequence[Tensor], keypoints: Tensor, labelled: Tensor, teacher: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            outputs: (B, C, H, W) each, first to last.
            keypoints: (B, K, 2) x y in pixels of the network's input.
            labelled: (B, K) bool.
            teacher: (B, K, H, W) heatmaps of a better network, learnt from for unlabelled joints too.
        """
        size = (outputs[0].shape[2], outputs[0].shape[3])
        target = gaussian_heatmaps(keypoints, labelled, size)
        known = on_heatmap(keypoints, labelled, size)
        losses = []
        for output in outputs:
            maps = output.float()
            loss = self._of_labels(maps, keypoints, target, known)
            if teacher is not None:
                taught = 0.5 * F.mse_loss(maps[:, : keypoints.shape[1]], teacher)
                loss = (1 - self.teacher_share) * loss + self.teacher_share * taught
            losses.append(loss)
        return torch.stack(losses).sum()

    def _of_labels(self, maps: Tensor, keypoints: Tensor, target: Tensor, known: Tensor) -> Tensor:
        k = keypoints.shape[1]
        if self.decode == "argmax":
            return heatmap_loss(maps, target, known, self.foreground)
        if self.decode == "offset":
            offsets = offset_loss(maps[:, k:], offset_maps(keypoints, (maps.shape[2], maps.shape[3])), target, known)
            return heatmap_loss(maps[:, :k], target, known, self.foreground) + _OFFSET_SHARE * offsets
        body = 0 if self.decode == "integral" else k - COMBINED_REGRESSED[k]
        places = relative_places(keypoints, self.input_size)
        regressed = integral_loss(maps[:, body:], places[:, body:], known[:, body:], self.norm)
        if self.decode == "integral":
            return regressed
        heatmaps = heatmap_loss(maps[:, :body], target[:, :body], known[:, :body], self.foreground)
        return _HEATMAP_SHARE * heatmaps + _INTEGRAL_SHARE * regressed
