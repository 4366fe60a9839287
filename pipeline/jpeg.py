"""JPEG encoding. Imports OpenCV and numpy alone."""

from __future__ import annotations

import cv2
import numpy as np

_QUALITY = 92


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG of quality 92."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()
