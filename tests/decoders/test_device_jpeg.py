"""JPEGs decoded on the device, here the CPU device; nvJPEG has not been run."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import encode, gradient
from support.paths import DEMO
from torch import Tensor

from pipeline.decoders import device_jpeg
from pipeline.decoders.device_jpeg import DeviceJpegDecoder, check_pixels, is_plain, make_jpeg_decoder
from pipeline.decoders.jpeg import decode_jpeg, read_frame
from pipeline.errors import UserError
from pipeline.images import DecodedImage, ImageRefused, decode_image
from pipeline.runtime.device import Compute

CPU = Compute.resolve("cpu", jpeg="device")
DECODER = DeviceJpegDecoder(CPU)
PHOTO = (DEMO / "photos" / "grace_hopper.jpg").read_bytes()


def decoded(data: bytes) -> DecodedImage:
    return decode_image(data, jpeg_decoder=DECODER)


@pytest.mark.parametrize("name", ["grace_hopper", "eileen_collins", "cat", "group"])
def test_photographs_have_the_pixels_of_the_cpu(name: str) -> None:
    data = (DEMO / "photos" / f"{name}.jpg").read_bytes()
    image = decoded(data)
    assert isinstance(image.content, Tensor)
    assert image.content.is_contiguous()
    difference = np.abs(image.pixels.astype(int) - decode_image(data).pixels)
    assert difference.max() <= 1  # both are libjpeg, of different versions


def _with_orientation(data: bytes) -> bytes:
    tag = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    block = b"Exif\0\0" + tag
    return data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]


def _cmyk(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(sink, "JPEG")
    return sink.getvalue()


PIXELS = gradient(48, 64)
UNUSUAL = {
    "progressive": encode(PIXELS, progressive=True),
    "grey": encode(PIXELS[:, :, 0]),
    "cmyk": _cmyk(PIXELS),
    "in RGB": encode(PIXELS, keep_rgb=True),
    "sideways": _with_orientation(encode(PIXELS)),
    "with a deviation": encode(PIXELS).replace(b"JFIF\0\x01\x01", b"JFIF\0\x02\x01"),
    "PNG": encode(PIXELS, "PNG"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_all_other_images_are_decoded_on_the_cpu(kind: str) -> None:
    image, expected = decoded(UNUSUAL[kind]), decode_image(UNUSUAL[kind])
    assert isinstance(image.content, np.ndarray)
    np.testing.assert_array_equal(image.content, expected.content)
    assert (image.orientation, image.warning) == (expected.orientation, expected.warning)
    assert (image.orientation == 6) == (kind == "sideways")
    assert (image.warning is not None) == (kind == "with a deviation")


@pytest.mark.parametrize("damage", ["cut short", "changed", "cut within the header"])
def test_a_damaged_file_has_the_error_of_the_cpu(damage: str) -> None:
    """The device alone would return partly grey pixels."""
    changed = bytearray(PHOTO)
    changed[len(PHOTO) // 2 : len(PHOTO) // 2 + 64] = bytes(64)
    data = {"cut short": PHOTO[: len(PHOTO) // 2], "changed": bytes(changed), "cut within the header": PHOTO[:60]}[
        damage
    ]
    with pytest.raises(ImageRefused) as expected:
        decode_image(data)
    with pytest.raises(ImageRefused) as refused:
        decoded(data)
    assert (refused.value.status, str(refused.value)) == (expected.value.status, str(expected.value))


def test_a_header_is_read_until_its_first_scan() -> None:
    assert read_frame(PHOTO) == (0xC0, 8, 3, True)
    assert read_frame(UNUSUAL["progressive"]) == (0xC2, 8, 3, True)
    assert read_frame(UNUSUAL["cmyk"])[2] == 4  # type: ignore[index]
    assert read_frame(UNUSUAL["in RGB"]) == (0xC0, 8, 3, False)
    for data in (b"", b"\xff\xd8", PHOTO[:60], UNUSUAL["PNG"]):
        assert read_frame(data) is None
        assert not is_plain(data)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("lost")])
def test_a_failure_of_the_device_is_not_attributed_to_the_image(error: Exception, monkeypatch) -> None:
    def fail(data: bytes) -> Tensor:
        raise error

    monkeypatch.setattr(DECODER, "decode", fail)
    with pytest.raises(MemoryError, match="the device cannot decode JPEGs"):
        decoded(PHOTO)


def test_what_the_device_does_not_support_is_decoded_on_the_cpu(monkeypatch) -> None:
    def refuse(data: bytes) -> Tensor:
        raise RuntimeError("unsupported subsampling")

    monkeypatch.setattr(DECODER, "decode", refuse)
    np.testing.assert_array_equal(decoded(PHOTO).content, decode_image(PHOTO).content)


class _Shifted(DeviceJpegDecoder):
    """A decoder whose colours are a pixel off, as without interpolation between them."""

    def decode(self, data: bytes) -> Tensor:
        return super().decode(data).roll(1, dims=1)


def test_other_pixels_are_refused_before_anything_is_annotated(tmp_path: Path) -> None:
    check_pixels(DECODER)
    with pytest.raises(
        UserError,
        match=r"^--compute\.jpeg device: on this machine the pixels of \w+\.jpg are [\d.]+ grey levels from those of "
        r"the CPU, [\d.]+% of them more than 16; leave it out$",
    ):
        check_pixels(_Shifted(CPU))
    shutil.copy(DEMO / "photos" / "cut_short.jpg", tmp_path)
    with pytest.raises(UserError, match="has none; run the job from a clone of the project, or leave it out"):
        check_pixels(DECODER, tmp_path)


def test_the_settings_choose_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CPU.warps, "tensors are not cropped by OpenCV"
    assert isinstance(make_jpeg_decoder(CPU), DeviceJpegDecoder)
    assert make_jpeg_decoder(Compute.resolve("cpu")) is decode_jpeg
    monkeypatch.setattr(device_jpeg, "DeviceJpegDecoder", _Shifted)
    with pytest.raises(UserError, match="leave it out"):
        make_jpeg_decoder(CPU)
