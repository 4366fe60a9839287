"""Random brightness, contrast and tint."""

from __future__ import annotations

import cv2
import numpy as np


def recolour(pixels: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 RGB with random contrast and brightness, by up to `amount`, and tint, by up to a third of it."""
    if amount == 0:
        return pixels
    contrast = random.uniform(1 - amount, 1 + amount)
    brightness = 255 * random.uniform(-amount, amount) / 2
    channels = random.uniform(1 - amount / 3, 1 + amount / 3, 3)
    table = (np.arange(256)[:, None] - 128) * contrast * channels + 128 + brightness
    return cv2.LUT(pixels, np.clip(table, 0, 255).astype(np.uint8)[None])
