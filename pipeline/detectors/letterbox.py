"""Images of any size in a network input of one size: scaled, padded with grey."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from pipeline.people import Boxes


class LetterboxStyle(NamedTuple):
    """How a family of networks wants its input: the grey beside the image, where that lies, how it is scaled."""

    pad_value: int
    centred: bool
    interpolation: int


DARKNET = LetterboxStyle(128, True, cv2.INTER_CUBIC)
YOLOX = LetterboxStyle(114, False, cv2.INTER_LINEAR)
YOLO = LetterboxStyle(114, True, cv2.INTER_LINEAR)


class Letterbox(NamedTuple):
    """How one image lies in the input: network pixel = image pixel * scale + offset, per axis."""

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


def letterbox(image: np.ndarray, out: np.ndarray, style: LetterboxStyle = DARKNET) -> Letterbox:
    """Scale an image into a network input.

    Args:
        image: (H, W, 3) uint8 RGB.
        out: (height, width, 3) uint8, overwritten.
    """
    height, width = image.shape[:2]
    scale = min(out.shape[1] / width, out.shape[0] / height)
    new_width, new_height = max(1, int(width * scale)), max(1, int(height * scale))
    left, top = (out.shape[1] - new_width) // 2, (out.shape[0] - new_height) // 2
    if not style.centred:
        left = top = 0
    out[:] = style.pad_value
    resized = cv2.resize(image, (new_width, new_height), interpolation=style.interpolation)
    out[top : top + new_height, left : left + new_width] = resized
    return Letterbox(width, height, new_width / width, new_height / height, left, top)
