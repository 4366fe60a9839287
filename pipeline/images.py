"""Image decoding: JPEG, PNG, WebP, BMP, TIFF and GIF to upright 8-bit RGB.

- The EXIF orientation is applied and recorded.
- Grey and palette images are converted to RGB, transparent pixels are blended with white, and CMYK is converted without
  a colour profile.
- 16-bit samples are scaled by 255 / 65535 and rounded.
- Only the first frame of an animation or of a multi-page file is decoded.
- A file with any damage that its decoder reports is refused: partly grey images are never returned.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
# Common image formats that are not decoded here.
OTHER_IMAGE_SUFFIXES = (".avif", ".heic", ".heif", ".jfif", ".jp2", ".j2k", ".jxl", ".ppm", ".tga", ".img")

Image.init()  # else Pillow registers some formats only when the first file of them is opened
# `DecodeLimits` replaces Pillow's limit, which would apply first.
Image.MAX_IMAGE_PIXELS = None


class ImageRefused(Exception):
    """The image cannot be decoded; it gets a row without people.

    Attributes:
        status: `unreadable`, `too_large` or `missing`.
        width, height: in pixels by the header, before the EXIF orientation is applied; None if it cannot be read.
    """

    def __init__(self, status: str, reason: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.width = width
        self.height = height


@dataclass(frozen=True)
class DecodeLimits:
    """Limits that are checked before an image is decoded.

    Attributes:
        max_megapixels: images with more pixels by their header are not decoded.
        max_megabytes: larger files are not read.
    """

    max_megapixels: float = 100.0
    max_megabytes: float = 256.0

    @property
    def max_bytes(self) -> int:
        return int(self.max_megabytes * 1e6)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        orientation: the EXIF orientation 1..8 of the file, already applied to the pixels.
    """

    pixels: np.ndarray
    orientation: int


def decode_image(data: bytes, limits: DecodeLimits = DecodeLimits()) -> DecodedImage:
    """Decode one encoded image.

    Args:
        data: the content of the file.
        limits: the number of pixels is checked before decoding; the number of bytes is not checked here.

    Raises:
        ImageRefused: the image exceeds the limits or is damaged; holds the status and the error of its row.
    """
    if not data:
        raise ImageRefused("unreadable", "the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageRefused("unreadable", f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:
        raise ImageRefused("unreadable", f"damaged header: {_reason(error)}") from None
    width, height = image.size
    if width * height > limits.max_megapixels * 1e6:
        reason = f"{width} x {height} pixels are more than {limits.max_megapixels:g} megapixels"
        raise ImageRefused("too_large", reason, width, height)
    try:
        orientation = _orientation(image)  # after the check of the size: decodes a PNG
        if image.format in ("JPEG", "MPO"):
            pixels = _upright(_decode_jpeg(data, image), orientation)
        elif _bits_per_sample(data, image) == 16:
            pixels = _upright(_decode_16_bit(data), orientation)
        elif image.format == "TIFF":
            pixels = _decode_8_bit(data, image)
        else:
            pixels = _upright(_decode_8_bit(data, image), orientation)
    except MemoryError:
        raise  # a failure of the machine, not of the image
    except Exception as error:
        raise ImageRefused("unreadable", _reason(error), width, height) from None
    return DecodedImage(np.ascontiguousarray(pixels), orientation)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _decode_jpeg(data: bytes, image: Image.Image) -> np.ndarray:
    # `strict` turns libjpeg's warnings (truncated or corrupt data) into errors; Pillow and OpenCV fill with grey.
    if image.mode == "CMYK":
        simplejpeg.decode_jpeg(data, "CMYK", strict=True)
        return np.asarray(image.convert("RGB"))
    return simplejpeg.decode_jpeg(data, "RGB", strict=True)


def _bits_per_sample(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR: width, height, bit depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]  # BitsPerSample
    return 8


def _decode_8_bit(data: bytes, image: Image.Image) -> np.ndarray:
    if image.format == "PNG":
        _check_png(data)
    image.seek(0)
    image.load()
    if image.mode in ("I", "F"):
        raise ValueError("32-bit samples have no defined 8-bit range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _decode_16_bit(data: bytes) -> np.ndarray:
    # OpenCV decodes all 16 bits; Pillow drops the lower eight bits of RGB samples.
    if data.startswith(b"\x89PNG"):
        _check_png(data)
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("damaged or unsupported 16-bit image")
    eight = ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if eight.ndim == 2:
        return cv2.cvtColor(eight, cv2.COLOR_GRAY2RGB)
    if eight.shape[2] == 4:
        return _over_white(cv2.cvtColor(eight, cv2.COLOR_BGRA2RGBA))
    return cv2.cvtColor(eight, cv2.COLOR_BGR2RGB)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    wide = rgba.astype(np.uint16)
    alpha = wide[:, :, 3:]
    return ((wide[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _check_png(data: bytes) -> None:
    """Check the CRC of each chunk and that the file has an end chunk; Pillow does neither for pixel data."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"damaged PNG: wrong checksum in a {kind.decode('ascii', 'replace')} chunk")
        if kind == b"IEND":
            return
        position = end + 4
    raise ValueError("truncated PNG: the file ends before its IEND chunk")


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (TIFF 6.0 tag 274) to (H, W, 3) pixels."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
