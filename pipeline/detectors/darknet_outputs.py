"""The last sections of Darknet networks, which decode maps into boxes: [yolo], and [distances] of NanoDet.

Shapes: B images, A anchors, C classes, maps of h x w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_TINY = torch.finfo(torch.float32).tiny


class Output(nn.Module):
    """From raw maps and the height of the network input to predictions (B, N, 5 + C), see `Darknet`.

    Attributes:
        classes: number of classes, C.
        per_cell: predictions of a cell.
        reach: maximum distance of a prediction's centre from that of its cell, in cells.
        score_channels: the channels of the maps whose sigmoids say how likely there is an object.
    """

    def __init__(self, classes: int, per_cell: int, reach: float, score_channels: list[int]) -> None:
        super().__init__()
        self.classes, self.per_cell, self.reach, self.score_channels = classes, per_cell, reach, score_channels


class Yolo(Output):
    """Raw maps (B, A * (5 + C), h, w) to predictions (B, h * w * A, 5 + C): cells row by row, then anchors."""

    def __init__(self, anchors: list[tuple[float, float]], classes: int, scale_xy: float, new_coords: bool) -> None:
        score_channels = [anchor * (5 + classes) + 4 for anchor in range(len(anchors))]
        super().__init__(classes, len(anchors), scale_xy / 2, score_channels)
        self.anchors, self.scale_xy, self.new_coords = anchors, scale_xy, new_coords

    def forward(self, x: Tensor, input_height: int) -> Tensor:
        x = x.float()
        batch, _, height, width = x.shape
        stride = input_height // height
        x = x.view(batch, len(self.anchors), 5 + self.classes, height, width).permute(0, 3, 4, 1, 2)
        cells = torch.stack(
            torch.meshgrid(torch.arange(width, device=x.device), torch.arange(height, device=x.device), indexing="xy"),
            dim=-1,
        )[:, :, None]
        # Created on the device: a copy from the host would wait for all work that is queued on the GPU.
        sides = [torch.full((), side, dtype=x.dtype, device=x.device) for anchor in self.anchors for side in anchor]
        anchors = torch.stack(sides).view(-1, 2)
        if self.new_coords:
            xy, size, rest = x[..., :2], (2 * x[..., 2:4]) ** 2 * anchors, x[..., 4:]
        else:
            xy, size, rest = x[..., :2].sigmoid(), x[..., 2:4].exp() * anchors, x[..., 4:].sigmoid()
        centre = (xy * self.scale_xy - (self.scale_xy - 1) / 2 + cells) * stride
        return torch.cat([centre, size, rest], dim=-1).reshape(batch, -1, 5 + self.classes)


class Distances(Output):
    """Raw maps (B, C + 4 * bins, h, w) to predictions (B, h * w, 5 + C) of boxes without anchors, cells row by row.

    The channels are the scores of the classes, then the distances of the left, top, right and bottom side from the
    centre of the cell, each as logits of 0, 1, ..., bins - 1 cells, of which the mean counts (Li et al., Generalized
    Focal Loss, NeurIPS 2020). The objectness is the score of the best class, and the probability of a class its share
    of that.
    """

    def __init__(self, classes: int, bins: int) -> None:
        super().__init__(classes, 1, (bins - 1) / 2, list(range(classes)))
        self.bins = bins

    def forward(self, x: Tensor, input_height: int) -> Tensor:
        x = x.float()
        batch, _, height, width = x.shape
        stride = input_height // height
        scores = x[:, : self.classes].sigmoid().flatten(2).transpose(1, 2)
        logits = x[:, self.classes :].view(batch, 4, self.bins, height * width)
        bins = torch.arange(self.bins, device=x.device, dtype=torch.float32)
        left, top, right, bottom = (logits.softmax(dim=2) * bins[:, None]).sum(dim=2).unbind(dim=1)
        cells = torch.arange(height * width, device=x.device)
        centre_x, centre_y = cells % width + 0.5, cells // width + 0.5
        boxes = torch.stack(
            [centre_x + (right - left) / 2, centre_y + (bottom - top) / 2, left + right, top + bottom], dim=-1
        )
        best = scores.amax(dim=2, keepdim=True)
        return torch.cat([boxes * stride, best, scores / best.clamp(min=_TINY)], dim=-1)
