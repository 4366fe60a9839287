"""JPEG: strict decoding that tolerates harmless deviations from the standard.

libjpeg reports a wrong version number and a truncated scan by the same kind of warning, and only the first one with its
text. So a file with a warning is decoded again without the deviations that libjpeg ignores; if warnings remain, its
pixels are damaged. Markers: ITU-T T.81, annex B; JFIF 1.02.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import simplejpeg

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP14, _APP15, _COM = 0xE0, 0xEE, 0xEF, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
BASELINE = 0xC0
_SEQUENTIAL = (BASELINE, 0xC1)  # baseline and extended sequential, Huffman
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and restart markers
_WHOLE_SPECTRUM = bytes((0, 63, 0))
_KNOWN_PARAMETERS = (_WHOLE_SPECTRUM, bytes(3))  # zeros are written by some cameras
_LAST_TRANSFORM = 2  # of Adobe's: 0 none, 1 YCbCr, 2 YCCK
_ASSUMED_TRANSFORM = {3: 1, 4: 2}  # by number of components


def decode_jpeg(data: bytes, color: str) -> tuple[np.ndarray, str | None]:
    """Decode a JPEG.

    Args:
        data: the content of the file.
        color: `RGB`, or `CMYK` for a file with four components.

    Returns:
        (H, W, C) uint8, not rotated, and a warning if the file deviates from the standard without damage to its pixels.

    Raises:
        ValueError: the file is damaged or truncated.
    """
    try:
        return simplejpeg.decode_jpeg(data, color, strict=True), None
    except ValueError as error:
        repaired = without_deviations(data)
        if repaired == data:
            raise
        return simplejpeg.decode_jpeg(
            repaired, color, strict=True
        ), f"JPEG header: {str(error).removeprefix('Warning: ')}"


class JpegFrame(NamedTuple):
    """What the header of a JPEG says about its image.

    Attributes:
        marker: of the frame; `BASELINE`, or of another kind of coding.
        bits: of a sample.
        components: number of colour components.
        has_luma: whether three components are YCbCr, and not RGB.
    """

    marker: int
    bits: int
    components: int
    has_luma: bool


def read_frame(data: bytes) -> JpegFrame | None:
    """The frame of a JPEG; None if the file deviates from the standard before its first scan."""
    position, has_luma, frame = 2, True, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) > 15:
            has_luma = segment[15] == 1
        elif marker in _FRAMES and len(segment) > 9:
            frame = JpegFrame(marker, segment[4], segment[9], has_luma=True)
            names = segment[10::3][: frame.components]
            has_luma = has_luma and names != b"RGB"
        elif marker == _SOS:
            return None if frame is None else frame._replace(has_luma=has_luma)
        position = end
    return None


def without_deviations(data: bytes) -> bytes:
    """The same image without the deviations that do not affect its pixels.

    Wrong JFIF versions, Adobe transform codes and scan parameters are replaced by the values that decoders assume;
    stray bytes at the start and after metadata, and metadata, are left out; an end marker is added to a
    file with a single scan that lacks it, where a truncated scan is still detected. Data that is not a JPEG, and the
    scans themselves, are returned as they are.
    """
    out = bytearray(data[:2])
    position, components, frame, transform_at = 2, 0, 0, 0
    may_be_followed_by_stray_bytes = True  # a shifted table ends in bytes that only look like stray ones
    while position + 4 <= len(data):
        marker_at = data.find(b"\xff", position)
        if marker_at < 0 or marker_at + 4 > len(data):
            break
        if marker_at > position and not may_be_followed_by_stray_bytes:
            return data
        marker = data[marker_at + 1]
        if marker in (0x00, 0xFF) or marker in _WITHOUT_LENGTH:  # stray, fill byte, or without content
            position = marker_at + 1
            continue
        if marker == _EOI:
            return bytes(out) + data[marker_at:]
        end = marker_at + 2 + int.from_bytes(data[marker_at + 2 : marker_at + 4], "big")
        segment = bytearray(data[marker_at:end])
        may_be_followed_by_stray_bytes = _APP0 <= marker <= _APP15 or marker == _COM
        position = end
        if marker in _FRAMES and len(segment) > 9:
            frame, components = marker, segment[9]
        if marker == _SOS and len(segment) > 4:
            if frame in _SEQUENTIAL and bytes(segment[-3:]) in _KNOWN_PARAMETERS:
                segment[-3:] = _WHOLE_SPECTRUM
            if transform_at and out[transform_at] > _LAST_TRANSFORM:
                out[transform_at] = _ASSUMED_TRANSFORM.get(components, 0)
            scan = data[end:]
            if frame in _SEQUENTIAL and segment[4] == components and not _has_end(scan):
                scan = scan.removesuffix(b"\xff") + bytes((0xFF, _EOI))
            return bytes(out + segment) + scan
        if marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) > 10:
            segment[9:11] = b"\x01\x01"
        elif marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) > 15:
            transform_at = len(out) + 15
        elif _APP0 <= marker <= _APP15 or marker == _COM:
            continue
        out += segment
    return data


def _has_end(scan: bytes) -> bool:
    """Whether a marker other than a restart follows the coded data of a scan."""
    position = scan.find(b"\xff")
    while 0 <= position < len(scan) - 1:
        if scan[position + 1] not in (0x00, 0xFF) and scan[position + 1] not in _WITHOUT_LENGTH:
            return True
        position = scan.find(b"\xff", position + 1)
    return False
