"""The loss of a YOLO network with the class person.

Predictions are assigned to people by simplified optimal transport (SimOTA; Ge et al., YOLOX, 2021). The target of the
objectness is the IoU of the predicted box (Li et al., Generalized Focal Loss, NeurIPS 2020). The loss of boxes is
complete IoU (Zheng et al., AAAI 2020).

Shapes: B images, N predictions, M boxes, G people.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, complete_box_iou_loss

from pipeline.training.distributed import shared_denominator

_BOX_SHARE, _CLASS_SHARE = 5.0, 0.5
_TOP_OVERLAPS = 10  # their sum is the number of predictions of a person
_OVERLAP_COST = 3.0
_FAR_COST = 1e5
_IGNORED_OVERLAP = 0.5
_MIN_TEACHER_SCORE = 0.05  # boxes with a lower score of the teacher are not targets


def detection_loss(predictions: Tensor, cells: Tensor, reach: float, boxes: Tensor, kinds: Tensor) -> Tensor:
    """The loss against the labels, per assigned prediction.

    Args:
        predictions: (B, N, 6) of a Darknet network with one class: cx cy w h in pixels, objectness and class
            probability in 0..1.
        cells: (N, 3) centre x, centre y and stride of each prediction's cell, pixels.
        reach: maximum distance of a prediction's centre from the centre of its cell, in cells.
        boxes: (B, M, 4) x1 y1 x2 y2 in pixels.
        kinds: (B, M) int: 1 a person, 2 an ignored region, 0 padding.
    """
    corners = _corners(predictions)
    objectness, person = predictions[..., 4], predictions[..., 5]
    target = torch.zeros_like(objectness)
    not_ignored = torch.ones_like(objectness, dtype=torch.bool)
    rows: list[Tensor] = []
    truths: list[Tensor] = []
    with torch.no_grad():
        for image in range(len(predictions)):
            people = boxes[image][kinds[image] == 1]
            assigned, person_rows = assign(corners[image], objectness[image], cells, reach, people)
            ignored = boxes[image][kinds[image] == 2]
            if len(ignored):
                not_ignored[image] = _inside(corners[image], ignored).amax(dim=1) <= _IGNORED_OVERLAP
            not_ignored[image][assigned] = True
            overlaps = box_iou(corners[image][assigned], people).gather(1, person_rows[:, None])[:, 0]
            target[image][assigned] = overlaps
            rows.append(image * predictions.shape[1] + assigned)
            truths.append(people[person_rows])
    positive = torch.cat(rows)
    count = shared_denominator(torch.tensor(float(len(positive)), device=predictions.device))
    loss = (_quality_focal(objectness, target) * not_ignored).sum()
    if len(positive):
        box = complete_box_iou_loss(corners.flatten(0, 1)[positive], torch.cat(truths), reduction="sum")
        classification = -person.flatten()[positive].clamp(min=1e-6).log().sum()
        loss = loss + _BOX_SHARE * box + _CLASS_SHARE * classification
    return loss / count


def distillation_loss(predictions: Tensor, teacher: Tensor) -> Tensor:
    """The loss against a teacher: the same three terms, weighted by its scores and divided by their sum.

    Args:
        predictions: (B, N, 6), see `detection_loss`.
        teacher: (B, N, 5) cx cy w h in pixels and person score, of the same cells.
    """
    objectness, person, score = predictions[..., 4], predictions[..., 5], teacher[..., 4]
    count = shared_denominator(score.sum())
    confident = score > _MIN_TEACHER_SCORE
    box = complete_box_iou_loss(_corners(predictions)[confident], _corners(teacher)[confident])
    classification = -person[confident].clamp(min=1e-6).log()
    loss = (
        _quality_focal(objectness, score).sum()
        + (score[confident] * (_BOX_SHARE * box + _CLASS_SHARE * classification)).sum()
    )
    return loss / count


def assign(boxes: Tensor, objectness: Tensor, cells: Tensor, reach: float, people: Tensor) -> tuple[Tensor, Tensor]:
    """Assign predictions of an image to people.

    A prediction is a candidate for a person if the person's centre is within `reach` of its cell; cells outside the
    person's box cost more. The number of predictions of a person is the sum of its ten highest overlaps; those with the
    lowest cost (by objectness and overlap) are assigned. A prediction of several people goes to the one with the lowest
    cost.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 of the predictions, pixels.
        objectness: (N,) in 0..1.
        cells, reach: see `detection_loss`.
        people: (G, 4) x1 y1 x2 y2, pixels.

    Returns:
        rows of the assigned predictions (P,), and rows of their people (P,).
    """
    none = torch.zeros(0, dtype=torch.long, device=boxes.device)
    if not len(people):
        return none, none
    centre = (people[:, :2] + people[:, 2:]) / 2
    x, y = cells[:, 0, None], cells[:, 1, None]
    in_box = (x > people[:, 0]) & (x < people[:, 2]) & (y > people[:, 1]) & (y < people[:, 3])
    distance = (cells[:, None, :2] - centre).abs().amax(dim=2)
    near = distance < reach * cells[:, 2:]
    candidates = near.any(dim=1).nonzero()[:, 0]
    if not len(candidates):
        return none, none
    overlap = box_iou(boxes[candidates], people)
    cost = (
        -objectness[candidates, None].clamp(min=1e-6).log()
        - _OVERLAP_COST * overlap.clamp(min=1e-6).log()
        + _FAR_COST * ~(in_box & near)[candidates]
    )
    cost = cost + 10 * _FAR_COST * ~near[candidates]
    counts = overlap.topk(min(_TOP_OVERLAPS, len(candidates)), dim=0).values.sum(dim=0).int().clamp(min=1)
    rank = cost.argsort(dim=0).argsort(dim=0)
    selected = (rank < counts) & near[candidates]
    assigned = selected.any(dim=1)
    person_rows = torch.where(selected, cost, torch.inf).argmin(dim=1)
    return candidates[assigned], person_rows[assigned]


def _quality_focal(objectness: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, weighted by the squared difference (beta = 2 in the paper)."""
    cross_entropy = F.binary_cross_entropy(objectness, target, reduction="none")
    return cross_entropy * (objectness.detach() - target).square()


def _corners(rows: Tensor) -> Tensor:
    """(..., 4) x1 y1 x2 y2 of rows whose first columns are cx cy w h."""
    half = rows[..., 2:4] / 2
    return torch.cat([rows[..., :2] - half, rows[..., :2] + half], dim=-1)


def _inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """(N, M) share of each box (N, 4) inside each region (M, 4), 0..1."""
    first = torch.maximum(boxes[:, None, :2], regions[:, :2])
    last = torch.minimum(boxes[:, None, 2:], regions[:, 2:])
    common = (last - first).clamp(min=0).prod(dim=2)
    return common / (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6).prod(dim=1)[:, None]
