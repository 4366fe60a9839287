"""Losses of pose networks.

Shapes: B people, K joints, H x W heatmap cells. `known` (B, K) bool: joints that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.decodings import Norm, TrainedDecode
from pipeline.pose.heads import COMBINED_REGRESSED
from pipeline.pose.heatmap import normalise_heatmaps
from pipeline.training.distributed import shared_denominator
from pipeline.training.pose.targets import gaussian_heatmaps, offset_maps, on_heatmap, relative_positions

_AMPLITUDE = 2.0
_HEATMAP_SHARE, _INTEGRAL_SHARE, _OFFSET_SHARE = 100.0, 0.01, 0.1


def heatmap_loss(heatmaps: Tensor, target: Tensor, known: Tensor, foreground: float = 0.0) -> Tensor:
    """0.5 x mean squared error over all cells of all maps; maps of unknown joints have error 0.

    Args:
        heatmaps, target: (B, K, H, W).
        foreground: a cell has the weight 1 + foreground x target. Joints cover a hundredth of a map: without extra
            weight, a network with random weights outputs empty maps for many epochs.
    """
    error = (heatmaps - target).square() * known[..., None, None]
    return 0.5 * (error * (1 + foreground * target)).mean()


class _Expectation(torch.autograd.Function):
    """Expected cell of normalised maps, with the amplitude symmetric gradient of AlphaPose (TPAMI 2022, section 3.2).

    The gradient of a coordinate with respect to a cell does not grow with the cell's distance from it: it is + 2 at or
    beyond the coordinate, - 2 before it.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        cells = torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype)
        expected = (weights * cells).sum(dim=-1, keepdim=True)
        ctx.save_for_backward(cells, expected)
        return expected[..., 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        cells, expected = ctx.saved_tensors
        amplitude = torch.where(cells >= expected, _AMPLITUDE, -_AMPLITUDE)
        return gradients[0][..., None] * amplitude


def expected_positions(heatmaps: Tensor, norm: Norm) -> Tensor:
    """(B, K, 2) expected x / W - 0.5 and y / H - 0.5 of each map (B, K, H, W), differentiable."""
    height, width = heatmaps.shape[-2:]
    grid = normalise_heatmaps(heatmaps.flatten(2), norm).view_as(heatmaps)
    x = _Expectation.apply(grid.sum(dim=2)) / width - 0.5
    y = _Expectation.apply(grid.sum(dim=3)) / height - 0.5
    return torch.stack([x, y], dim=2)


def integral_loss(heatmaps: Tensor, positions: Tensor, known: Tensor, norm: Norm) -> Tensor:
    """Sum of |expected - true| over the known coordinates, per person; `positions` as of `relative_positions`."""
    distance = (expected_positions(heatmaps, norm) - positions).abs() * known[..., None]
    return distance.sum() / len(heatmaps)


def offset_loss(offsets: Tensor, target: Tensor, heatmap_target: Tensor, known: Tensor) -> Tensor:
    """Mean |offset - true|, in cells, over the cells within one sigma of a known joint."""
    near = ((heatmap_target > 0.6) & known[..., None, None]).repeat_interleave(2, dim=1)
    return ((offsets - target).abs() * near).sum() / shared_denominator(near.sum().float())


@dataclass(frozen=True)
class PoseLoss:
    """The loss of a batch for a decoding, summed over the outputs of a network.

    Attributes:
        input_size: height and width of the network's input, pixels.
        decode, norm: see `pipeline.pose.heads`.
        teacher_share: share of the distillation loss; the rest is the loss against the labels.
        foreground: see `heatmap_loss`.
    """

    input_size: tuple[int, int]
    decode: TrainedDecode = "argmax"
    norm: Norm = "sigmoid"
    teacher_share: float = 0.0
    foreground: float = 0.0

    def __call__(
        self, outputs: Sequence[Tensor], keypoints: Tensor, labelled: Tensor, teacher: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            outputs: (B, C, H, W) each.
            keypoints: (B, K, 2) x y in pixels of the network's input.
            labelled: (B, K) bool.
            teacher: (B, K, H, W) heatmaps of a teacher network, targets for unlabelled joints too.
        """
        size = (outputs[0].shape[2], outputs[0].shape[3])
        target = gaussian_heatmaps(keypoints, labelled, size)
        known = on_heatmap(keypoints, labelled, size)
        losses = []
        for output in outputs:
            maps = output.float()
            loss = self._label_loss(maps, keypoints, target, known)
            if teacher is not None:
                distillation = 0.5 * F.mse_loss(maps[:, : keypoints.shape[1]], teacher)
                loss = (1 - self.teacher_share) * loss + self.teacher_share * distillation
            losses.append(loss)
        return torch.stack(losses).sum()

    def _label_loss(self, maps: Tensor, keypoints: Tensor, target: Tensor, known: Tensor) -> Tensor:
        k = keypoints.shape[1]
        if self.decode == "argmax":
            return heatmap_loss(maps, target, known, self.foreground)
        if self.decode == "offset":
            offsets = offset_loss(maps[:, k:], offset_maps(keypoints, (maps.shape[2], maps.shape[3])), target, known)
            return heatmap_loss(maps[:, :k], target, known, self.foreground) + _OFFSET_SHARE * offsets
        body = 0 if self.decode == "integral" else k - COMBINED_REGRESSED[k]
        positions = relative_positions(keypoints, self.input_size)
        regression = integral_loss(maps[:, body:], positions[:, body:], known[:, body:], self.norm)
        if self.decode == "integral":
            return regression
        heatmaps = heatmap_loss(maps[:, :body], target[:, :body], known[:, :body], self.foreground)
        return _HEATMAP_SHARE * heatmaps + _INTEGRAL_SHARE * regression
