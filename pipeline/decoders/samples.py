"""Samples of decoded images to 8-bit RGB."""

from __future__ import annotations

import numpy as np


def to_8_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned samples of `bits` bits to uint8: scaled by 255 / (2**bits - 1) and rounded."""
    if samples.dtype == np.uint8 and bits == 8:
        return samples
    full = (1 << bits) - 1
    return ((samples.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def over_white(rgb: np.ndarray, alpha: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 blended with white by (H, W) uint8 alpha.

    Args:
        rgb: the colours.
        alpha: 0 transparent to 255 opaque.
        premultiplied: whether the colours are already multiplied by alpha.
    """
    wide, alpha = rgb.astype(np.uint32), alpha[:, :, None].astype(np.uint32)
    colour = 255 * np.minimum(wide, alpha) if premultiplied else wide * alpha
    return ((colour + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
