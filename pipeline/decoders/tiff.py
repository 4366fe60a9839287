"""TIFF with whole samples: 8 to 16 bits, grey, RGB or CMYK, in strips or tiles, interleaved or planar.

Pillow and OpenCV disagree about alpha, planar files and more than 8 bits. tifffile returns the stored samples; their
meaning is applied here by TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from pipeline.decoders.samples import over_white, to_8_bits

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # damage is an error of the image, not of the log

_ORIENTATION = 274  # tag
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _CMYK = 0, 1, 2, 5  # PhotometricInterpretation
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _CMYK: 4}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # ExtraSamples
_UNSIGNED = (1, 4)  # SampleFormat: unsigned, and undefined, which readers take as unsigned
# None, LZW, deflate (two codes), PackBits, LZMA, Zstandard: tifffile detects a truncated strip of each.
_COMPRESSIONS = (1, 5, 8, 32946, 32773, 34925, 50000)
_MOST_SAMPLES = 16  # per pixel
_LARGEST_SMALL_CHUNK = 1 << 20  # a small image may lie in a large tile


def silence_libtiff() -> None:
    """Keep the libtiff inside Pillow from writing about each damaged file to stderr, where a large run would drown.

    The damage itself is reported by exceptions. Only Linux lists the libraries of a process; elsewhere nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        maps = Path("/proc/self/maps").read_text().split()
        for library in {path for path in maps if "/libtiff" in path}:
            for kind in ("Error", "Warning"):
                set_handler = getattr(ctypes.CDLL(library), f"TIFFSet{kind}Handler")
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)


@dataclass(frozen=True)
class PlainTiff:
    """The first page of a TIFF whose samples are colours, without colour map or lossy compression.

    Attributes:
        size: width and height in pixels, before the orientation is applied.
        orientation: 1..8.
    """

    size: tuple[int, int]
    orientation: int
    _data: bytes

    @classmethod
    def open(cls, data: bytes) -> PlainTiff | None:
        """Read the header; None if another decoder must read the file.

        Raises:
            ValueError: the header is damaged, or samples have no defined 8-bit range.
        """
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            bits, samples = page.bitspersample, page.sampleformat
            if bits > 16 or (bits >= 8 and samples not in _UNSIGNED):
                raise ValueError(f"{bits}-bit samples of TIFF's format {samples} have no defined 8-bit range")
            size = (page.imagewidth, page.imagelength)
            if not all(isinstance(side, int) and side > 0 for side in size):
                raise ValueError(f"width and height are {size[0]} and {size[1]}")
            if not (isinstance(page.samplesperpixel, int) and 0 < page.samplesperpixel <= _MOST_SAMPLES):
                raise ValueError(f"{page.samplesperpixel} samples per pixel")
            if math.prod(page.chunks) > 4 * math.prod(size) * page.samplesperpixel + _LARGEST_SMALL_CHUNK:
                raise ValueError(f"a strip or tile has the size {page.chunks} in an image of {size}")
            orientation = page.tags.valueof(_ORIENTATION, default=1)
            colours, compression = _COLOURS.get(int(page.photometric)), int(page.compression)
            if bits < 8 or colours is None or compression not in _COMPRESSIONS or not set(page.axes) <= set("YXS"):
                if bits > 8:
                    raise ValueError(
                        f"{bits}-bit TIFF with photometric interpretation {int(page.photometric)} and compression "
                        f"{compression} is not supported"
                    )
                return None
            if min(page.databytecounts, default=0) == 0:
                if bits > 8:
                    raise ValueError("damaged TIFF: a strip or tile is missing")
                return None  # old programs wrote 0 for a single strip
            if page.samplesperpixel < colours:
                raise ValueError(f"damaged TIFF: {page.samplesperpixel} samples per pixel, expected {colours}")
        return cls(size, orientation if orientation in range(1, 9) else 1, data)

    def decode(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, not rotated; transparent pixels are blended with white.

        Raises:
            ValueError: the file is damaged.
        """
        with tifffile.TiffFile(io.BytesIO(self._data)) as file:
            page = file.pages.first
            samples = page.asarray()
            if page.axes == "SYX":  # planar
                samples = samples.transpose(1, 2, 0)
            samples = samples.reshape(page.imagelength, page.imagewidth, -1)
            photometric, extra = int(page.photometric), [int(kind) for kind in page.extrasamples]
            bits = page.bitspersample
        colours = _COLOURS[photometric]
        rgb = _to_rgb(to_8_bits(samples[:, :, :colours], bits), photometric)
        for channel, kind in enumerate(extra[: samples.shape[2] - colours], start=colours):
            if kind in (_PREMULTIPLIED, _STRAIGHT):
                alpha = to_8_bits(samples[:, :, channel], bits)
                return over_white(rgb, alpha, premultiplied=kind == _PREMULTIPLIED)
        return rgb


def _to_rgb(colour: np.ndarray, photometric: int) -> np.ndarray:
    if photometric == _CMYK:
        ink = 255 - colour.astype(np.uint16)
        return ((ink[:, :, :3] * ink[:, :, 3:] + 127) // 255).astype(np.uint8)
    if photometric == _MIN_IS_WHITE:
        colour = 255 - colour
    return np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour
