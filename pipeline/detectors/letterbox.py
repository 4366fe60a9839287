"""Images of any size in a square network input: scaled, centred, padded with grey."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from pipeline.people import Boxes

PAD_VALUE = 128


class Letterbox(NamedTuple):
    """How one image lies in the square: network pixel = image pixel * scale + offset, per axis."""

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes in network pixels to image pixels, clamped to the image."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        return Boxes(np.clip((boxes.xyxy - offset) / scale, 0, limit), boxes.scores)


def letterbox(image: np.ndarray, out: np.ndarray) -> Letterbox:
    """Scale an image into a square, bicubic.

    Args:
        image: (H, W, 3) uint8 RGB.
        out: (S, S, 3) uint8, overwritten.
    """
    side = out.shape[0]
    height, width = image.shape[:2]
    scale = min(side / width, side / height)
    new_width, new_height = max(1, int(width * scale)), max(1, int(height * scale))
    left, top = (side - new_width) // 2, (side - new_height) // 2
    out[:] = PAD_VALUE
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_CUBIC)
    out[top : top + new_height, left : left + new_width] = resized
    return Letterbox(width, height, new_width / width, new_height / height, left, top)
