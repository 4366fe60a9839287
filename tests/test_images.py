import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from support.images import encode, gradient
from support.paths import SHARED

from pipeline.images import DecodeLimits, ImageRefused, decode_image


def opencv(data: bytes, flag: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Pixels by OpenCV, as an independent reference."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), flag)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_lossless_formats_give_back_the_pixels(form: str) -> None:
    pixels = gradient()
    if form == "GIF":
        pixels = np.asarray(Image.fromarray(pixels).quantize(64).convert("RGB"))
    data = encode(pixels, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(decode_image(data).pixels, pixels)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}])
def test_jpeg_equals_opencv(options: dict) -> None:
    data = encode(gradient(131, 77), "JPEG", **options)
    np.testing.assert_array_equal(decode_image(data).pixels, opencv(data))


def test_grey_and_palette_images_equal_opencv() -> None:
    grey = gradient()[:, :, 0]
    for form in ("PNG", "JPEG", "TIFF"):
        data = encode(grey, form)
        np.testing.assert_array_equal(decode_image(data).pixels, opencv(data))
    sink = io.BytesIO()
    Image.fromarray(gradient()).quantize(16).save(sink, "PNG")
    np.testing.assert_array_equal(decode_image(sink.getvalue()).pixels, opencv(sink.getvalue()))
    sink = io.BytesIO()
    Image.fromarray(grey > 100).save(sink, "PNG")
    np.testing.assert_array_equal(decode_image(sink.getvalue()).pixels, opencv(sink.getvalue()))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparent_pixels_are_blended_with_white(form: str) -> None:
    rgba = np.dstack([gradient(), np.arange(48 * 64).reshape(48, 64) % 256]).astype(np.uint8)
    data = encode(rgba, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    rgba_by_opencv = cv2.cvtColor(opencv(data, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA).astype(np.float64)
    alpha = rgba_by_opencv[:, :, 3:] / 255
    expected = np.rint(rgba_by_opencv[:, :, :3] * alpha + 255 * (1 - alpha))
    assert np.abs(decode_image(data).pixels - expected).max() <= 1


def test_transparent_palette_and_grey_images_are_blended_with_white() -> None:
    image = Image.fromarray(gradient()).quantize(8)
    sink = io.BytesIO()
    image.save(sink, "PNG", transparency=0)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 0] = 255
    np.testing.assert_array_equal(decode_image(sink.getvalue()).pixels, expected)
    grey_alpha = np.dstack([gradient()[:, :, 0], np.full((48, 64), 128, np.uint8)])
    sink = io.BytesIO()
    Image.fromarray(grey_alpha, "LA").save(sink, "PNG")
    expected = np.rint((grey_alpha[:, :, 0] * 128.0 + 255 * 127.0) / 255)
    assert np.abs(decode_image(sink.getvalue()).pixels - expected[:, :, None]).max() <= 1


def test_cmyk_is_close_to_opencv() -> None:
    sink = io.BytesIO()
    Image.fromarray(gradient()).convert("CMYK").save(sink, "JPEG", quality=95)
    ours, theirs = decode_image(sink.getvalue()).pixels.astype(int), opencv(sink.getvalue()).astype(int)
    assert np.abs(ours - theirs).mean() < 2
    assert np.abs(ours - gradient().astype(int)).mean() < 6  # not inverted


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_samples_are_scaled_to_8_bit(suffix: str, channels: int) -> None:
    deep = (gradient().astype(np.uint16) * 257 + 90)[:, :, :channels].squeeze()
    _, encoded = cv2.imencode(suffix, deep if channels == 1 else deep[:, :, ::-1])
    expected = np.rint(deep / 257.0)
    if channels == 1:
        expected = np.repeat(expected[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(encoded.tobytes()).pixels, expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_recorded(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(gradient(48, 64), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    decoded = decode_image(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decoded.orientation == orientation
    np.testing.assert_array_equal(decoded.pixels, np.asarray(upright))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_decoded(form: str) -> None:
    frames = [Image.fromarray(gradient(seed=i)).quantize(64).convert("RGB") for i in range(3)]
    sink = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {}
    frames[0].save(sink, form, save_all=True, append_images=frames[1:], **options)
    assert np.abs(decode_image(sink.getvalue()).pixels.astype(int) - np.asarray(frames[0])).max() <= 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.97])
def test_a_truncated_file_is_unreadable(form: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    data = encode(noise, form)
    with pytest.raises(ImageRefused) as refused:
        decode_image(data[: int(len(data) * part)])
    assert refused.value.status == "unreadable"
    assert str(refused.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_damage_in_the_middle_is_unreadable(form: str) -> None:
    data = bytearray(encode(gradient(200, 200), form, **({"quality": 95} if form == "JPEG" else {})))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    with pytest.raises(ImageRefused) as refused:
        decode_image(bytes(data))
    assert refused.value.status == "unreadable"


def test_truncated_cmyk_is_unreadable() -> None:
    sink = io.BytesIO()
    Image.fromarray(gradient()).convert("CMYK").save(sink, "JPEG")
    with pytest.raises(ImageRefused):
        decode_image(sink.getvalue()[:-60])


@pytest.mark.parametrize("data", [b"", b"just some text\n" * 50, b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_data_that_is_not_an_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(ImageRefused) as refused:
        decode_image(data)
    assert refused.value.status == "unreadable"


def test_an_image_with_too_many_pixels_is_refused_before_decoding() -> None:
    bomb = bytearray(encode(gradient(), "PNG"))
    bomb[16:24] = struct.pack(">II", 60_000, 50_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(ImageRefused) as refused:
        decode_image(bytes(bomb))
    assert refused.value.status == "too_large"
    assert (refused.value.width, refused.value.height) == (60_000, 50_000)
    assert "100 megapixels" in str(refused.value)
    small = encode(gradient(40, 50), "PNG")
    assert decode_image(small, DecodeLimits(max_megapixels=0.002)).pixels.shape == (40, 50, 3)
    with pytest.raises(ImageRefused, match=r"0\.0019"):
        decode_image(small, DecodeLimits(max_megapixels=0.0019))


def test_a_new_process_decodes_its_first_image() -> None:
    # Pillow registers some formats only when the first file of them is opened.
    data = encode(gradient(), "PNG")
    code = "import sys; from pipeline.images import decode_image; decode_image(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", code], input=data, check=True)


_CASES = SHARED / "cases" / "decode"


@pytest.mark.skipif(not _CASES.is_dir(), reason="needs the files of ../shared/cases")
def test_files_of_public_reports_have_the_true_pixels() -> None:
    truths = sorted(_CASES.glob("*.truth.png"))
    assert truths
    for truth in truths:
        expected = cv2.imread(str(truth), cv2.IMREAD_COLOR_RGB).astype(int)
        pixels = decode_image(truth.with_name(truth.name.removesuffix(".truth.png")).read_bytes()).pixels
        assert pixels.shape == expected.shape, truth.name
        assert np.abs(pixels - expected).mean() < 2, truth.name
