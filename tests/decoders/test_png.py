import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support.images import encode, gradient

from pipeline.images import decode_image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, transparent: tuple[int, ...] = (), orientation: int = 1) -> bytes:
    """(H, W, S) uint8 or uint16 as a PNG with a transparent colour, by the specification."""
    height, width, channels = samples.shape
    depth = 8 * samples.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in samples)
    chunks = [chunk(b"IHDR", header)]
    if transparent:
        chunks.append(chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    if orientation != 1:
        exif = Image.Exif()
        exif[274] = orientation
        chunks.append(chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_transparent_colour_becomes_white(depth: int, channels: int, orientation: int) -> None:
    pixels = gradient(40, 56)[:, :, :channels].copy()
    pixels[10:20, 5:30] = 77
    expected = np.repeat(pixels, 3, axis=2) if channels == 1 else pixels.copy()
    expected[(pixels == 77).all(axis=2)] = 255
    stored = pixels.astype(np.uint16) * 257 if depth == 16 else pixels
    key = 77 * 257 if depth == 16 else 77
    data = png(stored, (key,) * channels, orientation)
    decoded = decode_image(data)
    assert decoded.orientation == orientation
    np.testing.assert_array_equal(decoded.pixels, expected if orientation == 1 else np.rot90(expected, -1))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_blended_with_white(depth: int, channels: int) -> None:
    pixels = gradient(40, 56)[:, :, : channels - 1]
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    stored = np.dstack([pixels, alpha])
    data = png(stored.astype(np.uint16) * 257 if depth == 16 else stored)
    expected = pixels * (alpha / 255) + 255 - alpha.astype(float)
    assert np.abs(decode_image(data).pixels - np.broadcast_to(expected, (40, 56, 3))).max() <= 1


def test_large_texts_profiles_and_xmp_do_not_refuse_an_image() -> None:
    pixels = gradient(40, 56)
    info = PngImagePlugin.PngInfo()
    info.add_text("history", "x" * (3 << 20), zip=True)
    info.add_itxt("XML:com.adobe.xmp", "<x>" + " " * (2 << 20) + "</x>", zip=True)
    profile = np.random.default_rng(0).bytes(2 << 20)
    np.testing.assert_array_equal(decode_image(encode(pixels, "PNG", pnginfo=info, icc_profile=profile)).pixels, pixels)


def test_damaged_exif_is_ignored_with_a_warning() -> None:
    data = png(gradient(40, 56))
    header = data.index(b"IDAT") - 4
    damaged = data[:header] + chunk(b"eXIf", b"not EXIF data") + data[header:]
    decoded = decode_image(damaged)
    np.testing.assert_array_equal(decoded.pixels, gradient(40, 56))
    assert "EXIF" in (decoded.warning or "")
