"""From a network's raw predictions to the person boxes of one image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from pipeline.people import Boxes

TIGHTER_STEP = 0.05


def likely_rows(predictions: Tensor, confidence: float) -> list[Tensor]:
    """Each image's rows whose objectness is above `confidence`, float32 on the CPU, in their order.

    A GPU is waited for once for the batch, not for each image.

    Args:
        predictions: (B, N, 5 + C) float.
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
) -> Boxes:
    """Person boxes of one image by score, class and overlap.

    Kept are predictions scored above `confidence` whose best class is person. Where more than `max_boxes` remain after
    NMS, the candidates go through it again with a threshold 0.05 lower, until they fit or the threshold is used up.

    Args:
        predictions: (N, 5 + C) float: cx cy w h in network pixels, objectness, class probabilities.
        confidence: least score, exclusive.
        nms_iou: overlap from which the weaker of two boxes goes; areas count whole pixels, x2 - x1 + 1.
        objectness_alone: the objectness is the score; else it is multiplied by the probability of a person.

    Returns:
        Boxes in network pixels, best first.
    """
    rows = predictions[predictions[:, 4] > confidence].float()
    if rows.shape[1] > 6:
        rows = rows[rows[:, 5:].argmax(dim=1) == person_class]
    if not objectness_alone:
        rows[:, 4] *= rows[:, 5 + person_class]
        rows = rows[rows[:, 4] > confidence]
    rows = rows.cpu()
    half = rows[:, 2:4] / 2
    xyxy = torch.cat([rows[:, :2] - half, rows[:, :2] + half], dim=1)
    scores = rows[:, 4]
    keep = overlap_nms(xyxy, scores, nms_iou)
    while len(keep) > max_boxes and nms_iou > TIGHTER_STEP:
        nms_iou -= TIGHTER_STEP
        keep = overlap_nms(xyxy, scores, nms_iou)
    return Boxes(xyxy[keep].numpy(), scores[keep].numpy())


def overlap_nms(xyxy: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Rows that survive NMS, best first: suppressed at overlap >= `iou`, areas with + 1 pixel as Darknet has it."""
    whole_pixels = xyxy + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return nms(whole_pixels, scores, float(np.nextafter(np.float32(iou), np.float32(0))))
