"""JPEG encoding. Imports OpenCV and numpy alone."""

from __future__ import annotations

import cv2
import numpy as np


def encode_jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG; quality in 0..100."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()
