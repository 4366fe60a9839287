"""PNG: checksums of all chunks, and 16-bit samples with their transparency."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from pipeline.decoders.samples import over_white, to_8_bits

_GREY = 0  # colour type in IHDR
_WHITE = 255


def check_png(data: bytes) -> None:
    """Check the CRC of each chunk and that the file has an end chunk; Pillow does neither for pixel data.

    Raises:
        ValueError: the file is damaged or truncated.
    """
    for kind, content, checksum in _chunks(data):
        if zlib.crc32(kind + content) != checksum:
            raise ValueError(f"damaged PNG: wrong checksum in a {kind.decode('ascii', 'replace')} chunk")
        if kind == b"IEND":
            return
    raise ValueError("truncated PNG: the file ends before its IEND chunk")


def bits_per_sample(data: bytes) -> int:
    """The bit depth in the header of a PNG."""
    return data[24]


def decode_png16(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a PNG with 16-bit samples; transparent pixels are blended with white.

    Raises:
        ValueError: the file is damaged.
    """
    # OpenCV decodes all 16 bits; Pillow drops the lower eight bits of RGB samples.
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("damaged or unsupported 16-bit image")
    if samples.ndim == 2:
        rgb = np.repeat(to_8_bits(samples, 16)[:, :, None], 3, axis=2)
        rgb[samples == _transparent_grey(data)] = _WHITE
        return rgb
    alpha = samples[:, :, 3] if samples.shape[2] == 4 else None
    rgb = to_8_bits(samples[:, :, 2::-1], 16)
    return rgb if alpha is None else over_white(rgb, to_8_bits(alpha, 16))


def _transparent_grey(data: bytes) -> int:
    """The transparent value of the tRNS chunk of a grey PNG, which OpenCV ignores; -1 if it has none."""
    keys = (content for kind, content, _ in _chunks(data) if kind == b"tRNS" and data[25] == _GREY)
    key = next(keys, b"")
    return int.from_bytes(key[:2], "big") if len(key) >= 2 else -1


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Type, content and checksum of each complete chunk."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(data):
            return
        yield (
            data[position + 4 : position + 8],
            data[position + 8 : end],
            int.from_bytes(data[end : end + 4], "big"),
        )
        position = end + 4
