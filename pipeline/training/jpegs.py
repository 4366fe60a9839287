"""Encoded pictures, many of them in one .npz."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
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


def to_npz(jpegs: Sequence[bytes], made_for: str, **arrays: Any) -> bytes:
    """Pictures and arrays beside them as the bytes of one .npz, with a word on what they are for."""
    sink = io.BytesIO()
    data, ends = np.frombuffer(b"".join(jpegs), np.uint8), np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
    np.savez(sink, data=data, ends=ends, made_for=made_for, **arrays)
    return sink.getvalue()


def from_npz(content: bytes) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """The pictures and arrays that `to_npz` was given."""
    with np.load(io.BytesIO(content), allow_pickle=False) as z:
        arrays = {name: z[name] for name in z.files if name != "made_for"}
    data, ends = arrays.pop("data").tobytes(), arrays.pop("ends").tolist()
    return [data[a:b] for a, b in pairwise([0, *ends])], arrays


def made_for(content: bytes) -> str:
    """What `to_npz` was told that they are for; empty where it was told nothing."""
    with np.load(io.BytesIO(content), allow_pickle=False) as z:
        return str(z["made_for"]) if "made_for" in z.files else ""
