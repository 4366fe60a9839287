"""The loss of a YOLO network that finds people.

Which predictions should find whom: optimal transport made simple (Ge et al., YOLOX, 2021). How good a box is becomes
the objectness to learn (Li et al., Generalized Focal Loss, NeurIPS 2020); boxes learn by complete IoU (Zheng et al.,
AAAI 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, complete_box_iou_loss

from pipeline.training.distributed import over_processes

_BOX_SHARE, _CLASS_SHARE = 5.0, 0.5
_BEST = 10  # predictions whose overlaps add up to how many may find one person
_OVERLAP_COST = 3.0
_FAR_COST = 1e5
_IGNORED_OVERLAP = 0.5
_TAUGHT_SCORE = 0.05  # boxes that a teacher scores less are not learnt


def detection_loss(predictions: Tensor, cells: Tensor, reach: float, boxes: Tensor, kinds: Tensor) -> Tensor:
    """How wrong predictions are, per person that is to be found.

    Args:
        predictions: (B, N, 6) as a Darknet network of one class gives them: cx cy w h in pixels, objectness and class
            in 0..1.
        cells: (N, 3) centre x, y and stride of each prediction's cell, pixels.
        reach: how far from the centre of its cell a prediction's centre can be, in cells.
        boxes: (B, M, 4) x1 y1 x2 y2 in pixels.
        kinds: (B, M) 1 a person, 2 a region to ignore, 0 nothing.
    """
    found = _corners(predictions)
    objectness, person = predictions[..., 4], predictions[..., 5]
    target = torch.zeros_like(objectness)
    counted = torch.ones_like(objectness, dtype=torch.bool)
    rows: list[Tensor] = []
    truths: list[Tensor] = []
    with torch.no_grad():
        for image in range(len(predictions)):
            people = boxes[image][kinds[image] == 1]
            matched, whom = assign(found[image], objectness[image], cells, reach, people)
            ignored = boxes[image][kinds[image] == 2]
            if len(ignored):
                counted[image] = _inside(found[image], ignored).amax(dim=1) <= _IGNORED_OVERLAP
            counted[image][matched] = True
            overlaps = box_iou(found[image][matched], people).gather(1, whom[:, None])[:, 0]
            target[image][matched] = overlaps
            rows.append(image * predictions.shape[1] + matched)
            truths.append(people[whom])
    positive = torch.cat(rows)
    count = over_processes(torch.tensor(float(len(positive)), device=predictions.device))
    loss = (_quality_focal(objectness, target) * counted).sum()
    if len(positive):
        box = complete_box_iou_loss(found.flatten(0, 1)[positive], torch.cat(truths), reduction="sum")
        named = -person.flatten()[positive].clamp(min=1e-6).log().sum()
        loss = loss + _BOX_SHARE * box + _CLASS_SHARE * named
    return loss / count


def distillation_loss(predictions: Tensor, taught: Tensor) -> Tensor:
    """How far predictions are from a teacher's, per person that it sees; the same three terms, by its scores.

    Args:
        predictions: (B, N, 6), see `detection_loss`.
        taught: (B, N, 5) cx cy w h in pixels and score, of the same cells.
    """
    objectness, person, score = predictions[..., 4], predictions[..., 5], taught[..., 4]
    count = over_processes(score.sum())
    shown = score > _TAUGHT_SCORE
    box = complete_box_iou_loss(_corners(predictions)[shown], _corners(taught)[shown])
    named = -person[shown].clamp(min=1e-6).log()
    loss = _quality_focal(objectness, score).sum() + (score[shown] * (_BOX_SHARE * box + _CLASS_SHARE * named)).sum()
    return loss / count


def assign(found: Tensor, objectness: Tensor, cells: Tensor, reach: float, people: Tensor) -> tuple[Tensor, Tensor]:
    """Which predictions of an image should find which person.

    A prediction may find a person when its cell lies in the person's box or near its centre, and can be reached from
    there. Each person gets as many predictions as the overlaps of its best ten add up to, the cheapest by confidence
    and overlap; a prediction that several want finds the one that it costs least.

    Args:
        found: (N, 4) x1 y1 x2 y2.
        objectness: (N,).
        cells, reach: see `detection_loss`.
        people: (G, 4) x1 y1 x2 y2.

    Returns:
        Row numbers of predictions, and of their persons.
    """
    none = torch.zeros(0, dtype=torch.long, device=found.device)
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
    overlap = box_iou(found[candidates], people)
    cost = (
        -objectness[candidates, None].clamp(min=1e-6).log()
        - _OVERLAP_COST * overlap.clamp(min=1e-6).log()
        + _FAR_COST * ~(in_box & near)[candidates]
    )
    cost = cost + 10 * _FAR_COST * ~near[candidates]
    how_many = overlap.topk(min(_BEST, len(candidates)), dim=0).values.sum(dim=0).int().clamp(min=1)
    rank = cost.argsort(dim=0).argsort(dim=0)
    wanted = (rank < how_many) & near[candidates]
    chosen = wanted.any(dim=1)
    whom = torch.where(wanted, cost, torch.inf).argmin(dim=1)
    return candidates[chosen], whom[chosen]


def _quality_focal(objectness: Tensor, target: Tensor) -> Tensor:
    """Cross entropy by how far off it is, squared."""
    wrong = F.binary_cross_entropy(objectness, target, reduction="none")
    return wrong * (objectness.detach() - target).square()


def _corners(rows: Tensor) -> Tensor:
    """x1 y1 x2 y2 of rows that begin with cx cy w h."""
    half = rows[..., 2:4] / 2
    return torch.cat([rows[..., :2] - half, rows[..., :2] + half], dim=-1)


def _inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """(N, M) how much of each box lies in each region, 0..1."""
    first = torch.maximum(boxes[:, None, :2], regions[:, :2])
    last = torch.minimum(boxes[:, None, 2:], regions[:, 2:])
    common = (last - first).clamp(min=0).prod(dim=2)
    return common / (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6).prod(dim=1)[:, None]
