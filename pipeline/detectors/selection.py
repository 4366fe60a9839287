"""Selection of the person boxes of an image from the predictions of a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.people import Boxes

TIGHTER_STEP = 0.05
_FEW = 500  # boxes
COCO_CLASSES = 80  # person is the first


def likely_rows(predictions: Tensor, confidence: float) -> list[Tensor]:
    """The rows of each image with an objectness above `confidence`, float32 on the CPU, in their order.

    This synchronises with a GPU once per batch instead of once per image.

    Args:
        predictions: (B, N, 5 + C) float, see `select_people`.
        confidence: minimum objectness, exclusive.
    """
    likely = predictions[..., 4] > confidence
    counts = likely.sum(dim=1)
    return list(predictions[likely].float().cpu().split(counts.tolist()))


def select_people(
    predictions: Tensor,
    confidence: float,
    nms_iou: float,
    max_boxes: int,
    person_class: int = 0,
    objectness_alone: bool = True,
    poses: Tensor | None = None,
    least_confidence: float | None = None,
) -> Boxes:
    """Person boxes of one image, selected by score, class and overlap.

    Predictions are kept if their score is above `confidence` and their best class is person. If more than `max_boxes`
    remain after NMS, it is repeated with a threshold lower by 0.05, until they fit or the threshold reaches 0.05. Boxes
    with lower scores come after these, and do not change them.

    Args:
        predictions: (N, 5 + C) float: cx cy w h in network pixels, objectness, class probabilities.
        confidence: minimum score, exclusive.
        nms_iou: IoU from which the weaker of two boxes is dropped; boxes include their last pixel, x2 - x1 + 1 wide.
        max_boxes: number of boxes above which NMS is repeated.
        person_class: index of the class person.
        objectness_alone: whether the objectness is the score; else it is multiplied by the probability of person.
        poses: (N, K, 3) x y score of the joints in network pixels, if the network finds these as well.
        least_confidence: at most `max_boxes` boxes with scores from this up to `confidence` are added; by default none.

    Returns:
        Boxes in network pixels, best first.
    """
    end = predictions.shape[1]
    if poses is not None:
        predictions = torch.cat([predictions, poses.flatten(1)], dim=1)
    least = confidence if least_confidence is None else least_confidence
    rows = predictions[predictions[:, 4] > least].float()
    if end > 6:
        # If all class probabilities are zero, the first class is not the best one.
        rows = rows[(rows[:, 5:end].argmax(dim=1) == person_class) & (rows[:, 5 + person_class] > 0)]
    if not objectness_alone:
        rows[:, 4] *= rows[:, 5 + person_class]
        rows = rows[rows[:, 4] > least]
    rows = rows.cpu()
    rows = rows[rows[:, 4].argsort(descending=True, stable=True)]
    half = rows[:, 2:4] / 2
    xyxy = torch.cat([rows[:, :2] - half, rows[:, :2] + half], dim=1)
    scores = rows[:, 4]
    strong = int((scores > confidence).sum())
    weak = overlap_nms(xyxy, scores, nms_iou) if strong < len(rows) else torch.zeros(0, dtype=torch.int64)
    keep = overlap_nms(xyxy[:strong], scores[:strong], nms_iou)
    while len(keep) > max_boxes and nms_iou > TIGHTER_STEP:
        nms_iou -= TIGHTER_STEP
        keep = overlap_nms(xyxy[:strong], scores[:strong], nms_iou)
    keep = torch.cat([keep, weak[weak >= strong][:max_boxes]])
    found = None if poses is None else rows[keep, end:].reshape(len(keep), *poses.shape[1:]).numpy()
    return Boxes(xyxy[keep].numpy(), scores[keep].numpy(), found)


def overlap_nms(xyxy: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Indices of the rows that remain after NMS at IoU >= `iou`, best first; boxes include their last pixel.

    The results are those of torchvision's nms. That serves many boxes alone: its import takes seconds of a start.

    Args:
        xyxy: (N, 4) float32 on the CPU.
        scores: (N,) float32. Equal scores keep their order.
    """
    if len(xyxy) > _FEW:
        from torchvision.ops import nms

        inclusive = xyxy + torch.tensor([0.0, 0.0, 1.0, 1.0])
        return nms(inclusive, scores, float(np.nextafter(np.float32(iou), np.float32(0))))
    order = scores.argsort(descending=True, stable=True)
    boxes = (xyxy + torch.tensor([0.0, 0.0, 1.0, 1.0]))[order].numpy()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.arange(len(boxes))
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        others = boxes[waiting]
        sides = np.minimum(others[:, 2:], boxes[best, 2:]) - np.maximum(others[:, :2], boxes[best, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # boxes without an area overlap nothing
            waiting = waiting[~(shared / (areas[best] + areas[waiting] - shared) >= np.float32(iou))]
    return order[kept]
