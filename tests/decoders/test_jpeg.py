import struct

import numpy as np
import pytest
from support.images import encode, gradient

from pipeline.decoders.jpeg import decode_jpeg, without_deviations
from pipeline.images import ImageRefused, decode_image

_PHOTO = encode(gradient(131, 77), "JPEG", quality=95)
_PROGRESSIVE = encode(gradient(131, 77), "JPEG", quality=95, progressive=True)
_EXPECTED = decode_jpeg(_PHOTO, "RGB")[0]


def with_jfif_2(data: bytes) -> bytes:
    at = data.index(b"JFIF\0") + 5
    return data[:at] + b"\x02\x01" + data[at + 2 :]


def with_bad_scan_parameters(data: bytes) -> bytes:
    at = data.index(b"\xff\xda")
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    end = at + 2 + length
    return data[: end - 3] + b"\0\0\0" + data[end:]


def with_stray_bytes(data: bytes) -> bytes:
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\0\x12\0stray" + data[at:]


def with_unknown_adobe_transform(data: bytes) -> bytes:
    length = struct.unpack(">H", data[4:6])[0]  # of the JFIF segment, which would take precedence
    return data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07" + data[4 + length :]


def without_end(data: bytes) -> bytes:
    return data[:-2]


_DEVIATIONS = [with_jfif_2, with_bad_scan_parameters, with_stray_bytes, with_unknown_adobe_transform, without_end]


@pytest.mark.parametrize("deviate", _DEVIATIONS)
def test_a_harmless_deviation_keeps_the_pixels_and_warns(deviate) -> None:
    decoded = decode_image(deviate(_PHOTO))
    np.testing.assert_array_equal(decoded.pixels, _EXPECTED)
    assert decoded.warning is not None
    assert decode_image(_PHOTO).warning is None


def test_all_deviations_at_once() -> None:
    data = _PHOTO
    for deviate in (with_jfif_2, with_bad_scan_parameters, with_stray_bytes, without_end):
        data = deviate(data)
    np.testing.assert_array_equal(decode_image(data).pixels, _EXPECTED)


@pytest.mark.parametrize("deviate", _DEVIATIONS)
@pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
def test_a_deviation_does_not_hide_a_truncated_scan(deviate, part: float) -> None:
    data = deviate(_PHOTO)
    with pytest.raises(ImageRefused):
        decode_image(data[: int(len(data) * part)])


@pytest.mark.parametrize("deviate", _DEVIATIONS)
def test_a_deviation_does_not_hide_damage_in_a_scan(deviate) -> None:
    data = bytearray(deviate(_PHOTO))
    middle = data.index(b"\xff\xda") + (len(data) - data.index(b"\xff\xda")) // 2
    data[middle : middle + 40] = bytes(40)
    with pytest.raises(ImageRefused):
        decode_image(bytes(data))


def test_a_progressive_file_without_its_end_is_unreadable() -> None:
    # Where scans are missing, the picture is coarse, and only the missing end marker shows it.
    last_scan = _PROGRESSIVE.rindex(b"\xff\xda")
    for data in (_PROGRESSIVE[:-2], _PROGRESSIVE[:last_scan]):
        with pytest.raises(ImageRefused):
            decode_image(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xff\xff", b"not a JPEG at all"]
)
def test_other_data_is_returned_as_it_is(data: bytes) -> None:
    assert without_deviations(data) == data


@pytest.mark.parametrize("block", [b"XX\0*" + b"\xff" * 40, b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\xff\xff\xff\xff", b"I"])
def test_a_damaged_exif_block_does_not_refuse_the_image(block: bytes) -> None:
    block = b"Exif\0\0" + block
    data = _PHOTO[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + _PHOTO[2:]
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, _EXPECTED)


@pytest.mark.parametrize("photo", [_PHOTO, _PROGRESSIVE])
def test_what_is_decoded_in_spite_of_damage_has_the_right_pixels(photo: bytes) -> None:
    """Bytes are inserted, deleted or changed before the first scan: a shifted table must not pass for stray bytes."""
    expected = decode_jpeg(photo, "RGB")[0]
    r = np.random.default_rng(0)
    scan = photo.index(b"\xff\xda") + 14
    repaired = 0
    for _ in range(1500):
        at, data = int(r.integers(2, scan)), bytearray(photo)
        kind = r.integers(3)
        if kind == 0:
            data[at:at] = r.bytes(int(r.integers(1, 4)))
        elif kind == 1:
            del data[at : at + int(r.integers(1, 4))]
        else:
            data[at] = int(r.integers(256))
        try:
            decode_jpeg(bytes(data), "RGB")
        except ValueError:
            continue
        pixels, warning = decode_jpeg(bytes(data), "RGB")
        if warning is not None:
            repaired += 1
            np.testing.assert_array_equal(pixels, expected)
    assert repaired > 10
