"""Selection of the person boxes of a whole batch on the device of the predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.detectors.selection import TIGHTER_STEP, likely_rows, select_people
from pipeline.people import Boxes

_MANY = 512  # rows of an image; the memory for their overlaps grows with the square
_STEPS_PER_TEST = 4  # a test waits for the device


def select_batch(
    predictions: Tensor,
    confidence: float,
    nms_iou: float,
    max_boxes: int,
    person_class: int = 0,
    least_confidence: float | None = None,
) -> list[Boxes]:
    """The people of each image as `select_people` selects them by objectness, equal to the last bit.

    The boxes leave the device at once. Where an image has more than 512 likely rows, all go through `select_people`, in
    memory.

    Args:
        predictions: (B, N, 5 + C) float, see `select_people`; the other arguments as well.
    """
    least = confidence if least_confidence is None else least_confidence
    likely = predictions[..., 4] > least
    most = int(likely.sum(dim=1).max())
    if most > _MANY:
        return [
            select_people(rows, confidence, nms_iou, max_boxes, person_class, least_confidence=least)
            for rows in likely_rows(predictions, least)
        ]
    objectness = torch.where(likely, predictions[..., 4], -1)
    order = objectness.argsort(dim=1, descending=True, stable=True)[:, :most]
    rows = predictions.gather(1, order[..., None].expand(-1, -1, predictions.shape[2])).float()
    is_person = likely.gather(1, order) & _is_best_class(rows[..., 5:], person_class)
    half = rows[..., 2:4] / 2
    xyxy = torch.cat([rows[..., :2] - half, rows[..., :2] + half], dim=2)
    is_sure = is_person & (rows[..., 4] > confidence)

    ious = _ious(xyxy)
    keep = _greedy(ious >= nms_iou, is_sure)
    is_weak = _greedy(ious >= nms_iou, is_person) & ~is_sure
    tighter = nms_iou
    while tighter > TIGHTER_STEP and bool((too_many := keep.sum(dim=1) > max_boxes).any()):
        tighter -= TIGHTER_STEP
        keep = torch.where(too_many[:, None], _greedy(ious >= tighter, is_sure), keep)
    keep |= is_weak & (is_weak.cumsum(dim=1) <= max_boxes)
    found = torch.cat([xyxy, rows[..., 4:5], keep[..., None]], dim=2).cpu().numpy()
    return [Boxes(image[image[:, 5] > 0, :4], image[image[:, 5] > 0, 4]) for image in found]


def _is_best_class(probabilities: Tensor, person: int) -> Tensor:
    """Whether person is the first of the most probable classes, (B, M), of probabilities (B, M, C)."""
    if probabilities.shape[2] < 2:
        return torch.ones_like(probabilities[..., 0], dtype=torch.bool)
    of_person = probabilities[..., person]
    best = of_person > 0
    if person > 0:
        best &= of_person > probabilities[..., :person].amax(dim=2)
    if person + 1 < probabilities.shape[2]:
        best &= of_person >= probabilities[..., person + 1 :].amax(dim=2)
    return best


def _ious(xyxy: Tensor) -> Tensor:
    """IoU (B, M, M) of boxes (B, M, 4) that include their last pixel, with those after them; 0 with the others."""
    low, high = xyxy[..., :2], xyxy[..., 2:] + 1
    sides = high - low
    areas = sides[..., 0] * sides[..., 1]
    shared_sides = torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])
    shared = shared_sides.clamp(min=0).prod(dim=3)
    return (shared / (areas[:, :, None] + areas[:, None] - shared)).triu(diagonal=1)


def _greedy(overlaps: Tensor, candidates: Tensor) -> Tensor:
    """Which rows remain after NMS: those that no remaining row before them overlaps.

    All rows are judged at once, by what remained in the step before. The first row is right from the start, and each
    step makes at least one more right, so what does not change is the result.

    Args:
        overlaps: (B, M, M), whether row i overlaps row j, for i < j.
        candidates: (B, M), the rows that take part.
    """
    kept = candidates
    while True:
        for _ in range(_STEPS_PER_TEST):
            before, kept = kept, candidates & ~(overlaps & kept[:, :, None]).any(dim=1)
        if torch.equal(before, kept):
            return kept
