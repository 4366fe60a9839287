"""Many encoded pictures as two arrays, so that a collection is one .npz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

_QUALITY = 92


def encode(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()


def decode(jpeg: bytes) -> np.ndarray:
    """What `encode` made, (H, W, 3) uint8 RGB."""
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None  # they were encoded here
    return decoded


def pack(jpegs: Sequence[bytes]) -> dict[str, Any]:
    """All bytes in a row, and where each picture ends."""
    return {
        "data": np.frombuffer(b"".join(jpegs), np.uint8),
        "ends": np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64),
    }


def unpack(data: np.ndarray, ends: np.ndarray) -> list[bytes]:
    """What `pack` was given."""
    content = data.tobytes()
    starts = [0, *ends[:-1].tolist()]
    return [content[a:b] for a, b in zip(starts, ends.tolist(), strict=True)]
