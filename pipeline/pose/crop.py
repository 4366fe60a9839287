"""Boxes to network crops: one similarity transform per person, the same rule for every input size.

Frames: image pixels are those of the upright original; crop pixels are x' = W/2 + (x - cx) s, y' = H/2 + (y - cy) s
with one scale s and no half-pixel shift.
"""

from __future__ import annotations

import cv2
import numpy as np

ENLARGE = 1.25
# ImageNet's BGR mean on RGB channels: the published networks were trained with it so.
MEAN_RGB = np.array([0.406, 0.457, 0.480], np.float32)
_OPENCV_LONGEST_SIDE = 32_766  # warpAffine refuses more


def crop_boxes(boxes: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The transforms that cut people out.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 in image pixels.
        input_size: height and width of the crop, pixels.

    Returns:
        matrices (N, 2, 3) float64 that map image pixels to crop pixels, and the enlarged boxes (N, 4) float32 that the
        crops show, x1 y1 x2 y2 in image pixels.
    """
    height, width = input_size
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    crop_width = ENLARGE * np.maximum(size[:, 0], size[:, 1] * width / height)
    crop_height = crop_width * height / width
    scale = width / crop_width

    matrices = np.zeros((len(boxes), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, 0, 2] = width / 2 - centre[:, 0] * scale
    matrices[:, 1, 2] = height / 2 - centre[:, 1] * scale
    half = np.stack([crop_width, crop_height], axis=1) / 2
    return matrices, np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def cut_crops(image: np.ndarray, matrices: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Cut people out of one image, bilinear, black outside.

    Args:
        image: (H, W, 3) uint8 RGB.
        matrices: (N, 2, 3) image pixels to crop pixels.
        input_size: height and width of a crop.

    Returns:
        (N, height, width, 3) uint8 RGB.
    """
    height, width = input_size
    longest = max(image.shape[:2])
    if longest > _OPENCV_LONGEST_SIDE:
        shrink = -(-longest // _OPENCV_LONGEST_SIDE)
        image = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        matrices = matrices * np.array([shrink, shrink, 1.0])
    crops = np.empty((len(matrices), height, width, 3), np.uint8)
    for crop, matrix in zip(crops, matrices, strict=True):
        cv2.warpAffine(image, matrix, (width, height), dst=crop, flags=cv2.INTER_LINEAR)
    return crops
