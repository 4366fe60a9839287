"""Cuts between the scenes of a video, from thumbnails of its frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_WIDTH, _HEIGHT = 16, 9
_SAMPLED = 4  # each so many pixels in both directions are enough for a thumbnail
_LEAST = 25.0  # mean difference of the samples at a cut; a lens flare and a fast pan stay under 20
_RATIO = 3.0  # to the usual difference around it, which is large where the camera moves
_HALF_WINDOW = 12  # frames


def thumbnail(pixels: np.ndarray) -> bytes:
    """A frame (H, W, 3) uint8 RGB as 16 x 9 pixels of RGB."""
    step = _SAMPLED if min(pixels.shape[:2]) >= _SAMPLED * _WIDTH else 1
    return cv2.resize(pixels[::step, ::step], (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA).tobytes()


def find_cuts(thumbnails: Sequence[bytes | None]) -> np.ndarray:
    """(T,) bool, whether a frame begins another scene than the frame before. Frames without a thumbnail are skipped."""
    known = [i for i, data in enumerate(thumbnails) if data is not None]
    cuts = np.zeros(len(thumbnails), bool)
    if len(known) < 2:
        return cuts
    pixels = np.array([np.frombuffer(thumbnails[i] or b"", np.uint8) for i in known], np.float32)
    differences = np.abs(np.diff(pixels, axis=0)).mean(axis=1)
    for i, difference in enumerate(differences):
        if difference > _LEAST and _lasts(pixels, i):
            around = np.delete(differences, i)[max(0, i - _HALF_WINDOW) : i + _HALF_WINDOW]
            if len(around) == 0 or difference > _RATIO * np.median(around):
                cuts[known[i + 1]] = True
    return cuts


def _lasts(pixels: np.ndarray, i: int) -> bool:
    """Whether the two frames after step i differ from the two before it: after a flash the scene is the same again."""
    before, after = pixels[max(0, i - 1) : i + 1], pixels[i + 1 : i + 3]
    return bool(np.abs(before[:, None] - after[None]).mean(axis=2).min() > _LEAST / 2)
