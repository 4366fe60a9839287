"""Image decoding: JPEG, PNG, WebP, BMP, TIFF and GIF to upright 8-bit RGB.

- The EXIF orientation is applied and recorded.
- Grey and palette images are converted to RGB, transparent pixels are blended with white, and CMYK is converted without
  a colour profile.
- Samples of 9 to 16 bits are scaled to 0..255 and rounded.
- Only the first frame of an animation or of a multi-page file is decoded.
- A file with any damage that its decoder reports is refused: partly grey images are never returned. Deviations from the
  standard that leave the pixels intact give a warning.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from pipeline.decoders import jpeg, png, tiff
from pipeline.decoders.samples import over_white

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
# Common image formats that are not decoded here.
OTHER_IMAGE_SUFFIXES = (".avif", ".heic", ".heif", ".jfif", ".jp2", ".j2k", ".jxl", ".ppm", ".tga", ".img")

Image.init()  # else Pillow registers some formats only when the first file of them is opened
# `DecodeLimits` replaces Pillow's limit, which would apply first.
Image.MAX_IMAGE_PIXELS = None
# Editors store histories, XMP and colour profiles of several megabytes, which Pillow refuses by default.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20
tiff.silence_libtiff()
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"PIL\.")  # about single files: they would flood the log of a large run


SIGNATURE_BYTES = 16
VIDEO_SIGNATURE_BYTES = 400
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *tiff.SIGNATURES)


def has_video_signature(head: bytes) -> bool:
    """Whether the first 400 bytes of a file are of MP4, QuickTime, Matroska, AVI, or of an MPEG stream."""
    is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    # Packets of 188 bytes start with G; on cameras and discs a time stamp of 4 bytes is before each.
    is_ts = any(head[start::size][:2] == b"GG" for start, size in ((0, 188), (4, 192)))
    return is_mp4 or is_avi or is_ts or head.startswith((b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba"))


def has_image_signature(head: bytes) -> bool:
    """Whether a file that starts with `head`, its first 16 bytes, claims to be of a format that is decoded here."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_bmp = head[:2] == b"BM" and head[6:10] == bytes(4)
    return head.startswith(_SIGNATURES) or is_webp or is_bmp


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
        content: (H, W, 3) uint8 RGB, upright; a tensor if a device has decoded it.
        orientation: the EXIF orientation 1..8 of the file, already applied to the pixels.
        warning: a deviation from the standard that leaves the pixels intact, None without any.
    """

    content: np.ndarray | Tensor
    orientation: int
    warning: str | None = None

    @property
    def pixels(self) -> np.ndarray:
        """The content in memory."""
        return self.content if isinstance(self.content, np.ndarray) else self.content.cpu().numpy()


JpegDecoder = Callable[[bytes, str], "tuple[np.ndarray | Tensor, str | None]"]  # as `decode_jpeg`


def decode_image(
    data: bytes, limits: DecodeLimits = DecodeLimits(), jpeg_decoder: JpegDecoder = jpeg.decode_jpeg
) -> DecodedImage:
    """Decode one encoded image.

    Args:
        data: the content of the file.
        limits: the number of pixels is checked before decoding; the number of bytes is not checked here.
        jpeg_decoder: of upright JPEGs.

    Raises:
        ImageRefused: the image exceeds the limits or is damaged; holds the status and the error of its row.
    """
    if not data:
        raise ImageRefused("unreadable", "the file is empty")
    try:
        encoded = _open(data)
    except UnidentifiedImageError:
        if has_video_signature(data):
            reason = "a video, which its name does not say; give it the suffix of a video, such as .mp4"
            raise ImageRefused("unreadable", reason) from None
        raise ImageRefused("unreadable", f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:
        raise ImageRefused("unreadable", f"damaged header: {_reason(error)}") from None
    width, height = encoded.size
    if width * height > limits.max_megapixels * 1e6:
        reason = f"{width} x {height} pixels are more than {limits.max_megapixels:g} megapixels"
        raise ImageRefused("too_large", reason, width, height)
    try:
        pixels, orientation, warning = _decode(data, encoded, jpeg_decoder)
    except MemoryError:
        raise  # a failure of the machine, not of the image
    except Exception as error:
        raise ImageRefused("unreadable", _reason(error), width, height) from None
    if isinstance(pixels, np.ndarray):
        pixels = np.ascontiguousarray(pixels)
    return DecodedImage(pixels, orientation, warning)


def _open(data: bytes) -> Image.Image | tiff.PlainTiff:
    """Read the header, not the pixels."""
    plain = tiff.PlainTiff.open(data) if data.startswith(tiff.SIGNATURES) else None
    return plain or Image.open(io.BytesIO(data), formats=FORMATS)


def _decode(
    data: bytes, encoded: Image.Image | tiff.PlainTiff, jpeg_decoder: JpegDecoder
) -> tuple[np.ndarray | Tensor, int, str | None]:
    """Upright pixels, the orientation that was applied, and a warning about harmless deviations."""
    if isinstance(encoded, tiff.PlainTiff):
        return upright(encoded.decode(), encoded.orientation), encoded.orientation, None
    if encoded.format == "PNG":
        png.check_png(data)
    orientation, warning = _orientation(encoded)
    if encoded.format in ("JPEG", "MPO"):
        color = "CMYK" if encoded.mode == "CMYK" else "RGB"
        if orientation == 1:
            pixels, deviation = jpeg_decoder(data, color)
            if not isinstance(pixels, np.ndarray):
                return pixels, orientation, warning or deviation
        else:
            pixels, deviation = jpeg.decode_jpeg(data, color)
        warning = warning or deviation
        if color == "CMYK":  # Pillow handles the inversion by Adobe's programs
            pixels = np.asarray(encoded.convert("RGB"))
    elif encoded.format == "PNG" and png.bits_per_sample(data) == 16:
        pixels = png.decode_png16(data)
    else:
        pixels = _decode_by_pillow(encoded)
        if encoded.format == "TIFF":
            return pixels, orientation, warning  # Pillow has applied the orientation
    return upright(pixels, orientation), orientation, warning


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _orientation(image: Image.Image) -> tuple[int, str | None]:
    """The orientation 1..8 of the EXIF data, 1 without any; and a warning if the EXIF data is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        return 1, f"damaged EXIF data is ignored: {_reason(error)}"
    return (value if value in range(1, 9) else 1), None


def _decode_by_pillow(image: Image.Image) -> np.ndarray:
    image.seek(0)
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise ValueError(f"samples of Pillow's mode {image.mode} have no defined 8-bit range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        return over_white(rgba[:, :, :3], rgba[:, :, 3])
    return np.asarray(image.convert("RGB"))


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) pixels with an EXIF orientation 1..8 (TIFF 6.0 tag 274) applied."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
