"""Synthetic images for tests."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encode(pixels: np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    """An image encoded by Pillow; `form` is a format name of Pillow."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form, **options)
    return sink.getvalue()


def gradient(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB: smooth, so that JPEG preserves it, and asymmetric, to detect a wrong orientation."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, (x + 2 * y + 17 * seed) % 256]
    return np.stack(channels, axis=2).astype(np.uint8)
