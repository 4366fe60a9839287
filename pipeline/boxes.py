"""Boxes in numpy: conversions, areas, overlaps.

The suffix of a name states the format: `_xyxy` is x1 y1 x2 y2, `_xywh` is x y width height with x y the top left corner
(COCO), `_cxcywh` has the centre instead. For tensors use `torchvision.ops.box_convert` and `box_iou`.
"""

from __future__ import annotations

import numpy as np


def xyxy_to_xywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(..., 4) x1 y1 x2 y2 to x y width height."""
    return np.concatenate([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1)


def xywh_to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    """(..., 4) x y width height to x1 y1 x2 y2."""
    return np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1)


def long_sides(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N,) the longer side of each box (N, 4)."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1)


def areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N,) the area of each box (N, 4); 0 for a box of negative size."""
    return np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0).prod(axis=1)


def iou(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N, N) float64 intersection over union of all pairs of (N, 4) boxes; 0 where the union is empty.

    >>> iou(np.array([[0, 0, 2, 2], [1, 0, 3, 2]])).round(2).tolist()
    [[1.0, 0.33], [0.33, 1.0]]
    """
    boxes_xyxy = boxes_xyxy.astype(np.float64)
    first = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    last = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    intersection = np.maximum(last - first, 0).prod(axis=2)
    area = areas(boxes_xyxy)
    union = area[:, None] + area[None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def shares_of_smaller(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> np.ndarray:
    """(N, M) float64 intersections of (N, 4) and (M, 4) boxes over the smaller area; 1 where that is 0.

    >>> shares_of_smaller(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 9, 9], [0, 0, 9, 0]])).tolist()
    [[0.5, 1.0]]
    """
    first, second = first_xyxy.astype(np.float64), second_xyxy.astype(np.float64)
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    intersection = np.maximum(sides, 0).prod(axis=2)
    smaller = np.minimum(areas(first)[:, None], areas(second)[None])
    return np.divide(intersection, smaller, out=np.ones_like(intersection), where=smaller > 0)
