"""Many JPEGs, and arrays beside them, in one .npz."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np


def decode(jpeg: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG that `pipeline.jpeg.encode_jpeg` made."""
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    return decoded


def to_npz(jpegs: Sequence[bytes], made_for: str, **arrays: Any) -> bytes:
    """JPEGs and arrays as the bytes of one .npz.

    Args:
        made_for: the settings that the file depends on, as text.
    """
    sink = io.BytesIO()
    data, ends = np.frombuffer(b"".join(jpegs), np.uint8), np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
    np.savez(sink, data=data, ends=ends, made_for=made_for, **arrays)
    return sink.getvalue()


def from_npz(content: bytes) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """The JPEGs and arrays of `to_npz`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as z:
        arrays = {name: z[name] for name in z.files if name != "made_for"}
    data, ends = arrays.pop("data").tobytes(), arrays.pop("ends").tolist()
    return [data[a:b] for a, b in pairwise([0, *ends])], arrays


def made_for(content: bytes) -> str:
    """`made_for` of `to_npz`; empty if the file has none."""
    with np.load(io.BytesIO(content), allow_pickle=False) as z:
        return str(z["made_for"]) if "made_for" in z.files else ""
