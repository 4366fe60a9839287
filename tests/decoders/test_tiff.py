"""Depth x layout x compression x photometric interpretation x alpha x orientation, in files that tifffile writes."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.images import gradient

from pipeline.images import ImageRefused, decode_image

_TRANSPOSED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def tiff(samples: np.ndarray, photometric: str, *, orientation: int = 1, planar: bool = False, **options) -> bytes:
    """(H, W, S) samples as a TIFF."""
    sink = io.BytesIO()
    layout = {"planarconfig": "separate" if planar else "contig"} if samples.shape[2] > 1 else {}
    stored = samples.transpose(2, 0, 1) if planar and layout else samples.squeeze()
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(sink, stored, photometric=photometric, extratags=[tag], **layout, **options)
    return sink.getvalue()


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    transposed = _TRANSPOSED[orientation]
    image = Image.fromarray(pixels)
    return np.asarray(image if transposed is None else image.transpose(transposed))


def at_depth(samples: np.ndarray, depth: int) -> np.ndarray:
    """8-bit samples in `depth` bits: 0 stays 0, 255 becomes the maximum."""
    return samples if depth == 8 else samples.astype(np.uint16) * 257


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack", "miniswhite"])
def test_depth_layout_photometric_and_orientation(
    depth: int, orientation: int, planar: bool, compression: str | None, photometric: str
) -> None:
    pixels = gradient(40, 56)
    if photometric != "rgb":
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    stored = pixels if photometric == "rgb" else pixels[:, :, :1]
    stored = 255 - stored if photometric == "miniswhite" else stored
    data = tiff(
        at_depth(stored, depth),
        photometric,
        orientation=orientation,
        planar=planar,
        compression=compression,
        predictor=compression in ("lzw", "zlib"),
    )
    decoded = decode_image(data)
    assert decoded.orientation == orientation
    np.testing.assert_array_equal(decoded.pixels, upright(pixels, orientation))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_extra_sample_is_alpha_only_if_the_file_says_so(
    depth: int, kind: str, planar: bool, orientation: int
) -> None:
    pixels = gradient(40, 56)
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    share = alpha / 255
    stored = pixels if kind != "assocalpha" else np.rint(pixels * share).astype(np.uint8)
    expected = pixels if kind == "unspecified" else np.rint(pixels * share + 255 * (1 - share))
    data = tiff(
        at_depth(np.dstack([stored, alpha]), depth), "rgb", planar=planar, orientation=orientation, extrasamples=[kind]
    )
    actual = decode_image(data).pixels.astype(float)
    assert np.abs(actual - upright(expected.astype(np.uint8), orientation)).max() <= 2


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_of_odd_depths_fill_the_range(bits: int) -> None:
    pixels = gradient(40, 56)
    full = (1 << bits) - 1
    deep = np.rint(pixels / 255 * full).astype(np.uint16)
    sink = io.BytesIO()
    tifffile.imwrite(sink, deep, photometric="rgb", bitspersample=bits)
    np.testing.assert_array_equal(decode_image(sink.getvalue()).pixels, pixels)


def test_tiles_big_endian_bigtiff_and_cmyk() -> None:
    pixels = gradient(48, 64)
    deep = at_depth(pixels, 16)
    for options in ({"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}):
        sink = io.BytesIO()
        tifffile.imwrite(sink, deep, photometric="rgb", **options)
        np.testing.assert_array_equal(decode_image(sink.getvalue()).pixels, pixels)
    ink = at_depth(np.dstack([255 - pixels, np.zeros((48, 64), np.uint8)]), 16)
    np.testing.assert_array_equal(decode_image(tiff(ink, "separated")).pixels, pixels)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int16, np.uint32])
def test_samples_without_a_defined_range_are_unreadable(kind: type) -> None:
    data = tiff(gradient(40, 56).astype(kind), "rgb")
    with pytest.raises(ImageRefused) as refused:
        decode_image(data)
    assert refused.value.status == "unreadable"


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.97])
def test_a_truncated_file_is_unreadable(compression: str | None, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (64, 80, 3), dtype=np.uint16)
    data = tiff(noise, "rgb", compression=compression)
    with pytest.raises(ImageRefused):
        decode_image(data[: int(len(data) * part)])


@pytest.mark.parametrize("depth", [8, 16])
def test_a_strip_without_a_byte_count(depth: int) -> None:
    """Old programs wrote 0 for the only strip; Pillow reads it."""
    data = bytearray(tiff(at_depth(gradient(40, 56), depth), "rgb"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tag = file.pages.first.tags[279]
        data[tag.valueoffset : tag.valueoffset + 4] = bytes(4)
    if depth == 8:
        np.testing.assert_array_equal(decode_image(bytes(data)).pixels, gradient(40, 56))
    else:
        with pytest.raises(ImageRefused, match="a strip or tile is missing"):
            decode_image(bytes(data))
