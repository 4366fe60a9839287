"""JPEG decoding on the device of the networks, by torchvision: nvJPEG on a GPU.

It takes plain photographs alone, by their headers: baseline, 8 bits, three components in YCbCr, upright. A device does
not report damage as libjpeg does, so libjpeg first reads the coded data at an eighth of the size, without most of the
arithmetic. What it complains about is decoded on the CPU, with the same result as always.

Decoders differ where colours have half the resolution: libjpeg interpolates between them (its "fancy" upsampling), and
nvJPEG may repeat them. `check_pixels` compares both on photographs before any is annotated.
"""

from __future__ import annotations

import threading
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from pipeline.decoders.jpeg import BASELINE, JpegFrame, decode_jpeg, read_frame
from pipeline.errors import UserError, first_line
from pipeline.images import JpegDecoder
from pipeline.runtime.device import Compute

PHOTOGRAPHS = Path(__file__).parents[2] / "configs" / "demo" / "photos"
_MEAN_LIMIT = 1.0  # grey levels, of all values of a photograph
_LARGE, _LARGE_SHARE = 16, 0.01  # grey levels, and the share of the values that may differ by more
_PLAIN = JpegFrame(BASELINE, bits=8, components=3, has_luma=True)
_SMALLEST = 8  # an eighth of the size


class DeviceJpegDecoder:
    """Decodes like `decode_jpeg`, and plain photographs on the device; safe to use from several threads."""

    def __init__(self, compute: Compute) -> None:
        # Imported here: it takes seconds.
        from torchvision import io

        # torchvision says at each call that TorchCodec will replace its decoder.
        warnings.filterwarnings("ignore", module=r"torchvision\.io")
        self._decode_jpeg = partial(io.decode_jpeg, mode=io.ImageReadMode.RGB, device=compute.device)
        self._streams = compute.streams
        self._lock = threading.Lock()

    def __call__(self, data: bytes, color: str) -> tuple[np.ndarray | Tensor, str | None]:
        """See `decode_jpeg`; the pixels (H, W, 3) are a tensor on the device if it has decoded them.

        Raises:
            MemoryError: the device fails, not the image.
        """
        if color != "RGB" or not is_plain(data):
            return decode_jpeg(data, color)
        try:
            return self.decode(data), None
        except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
            raise MemoryError(f"the device cannot decode JPEGs: {first_line(error)}") from error
        except RuntimeError:  # it does not support all that libjpeg does
            return decode_jpeg(data, color)

    def decode(self, data: bytes) -> Tensor:
        """(H, W, 3) uint8 RGB of a plain photograph, on the device."""
        encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        with self._lock:
            if self._streams is None:
                return self._decode_jpeg(encoded).permute(1, 2, 0).contiguous()
            with torch.cuda.stream(self._streams.copies):
                # nvJPEG writes in a stream of its own, which waits for no other: earlier work on a buffer that it gets
                # must be done, and so must the copy from its buffer before the next image (pytorch/vision#9606).
                self._streams.copies.synchronize()
                pixels = self._decode_jpeg(encoded).permute(1, 2, 0).contiguous()
                self._streams.copies.synchronize()
        pixels.record_stream(torch.cuda.default_stream(pixels.device))
        return pixels


def make_jpeg_decoder(compute: Compute) -> JpegDecoder:
    """The decoder that the settings name, checked.

    Raises:
        UserError: the device decodes to other pixels, see `check_pixels`.
    """
    if compute.jpeg == "cpu":
        return decode_jpeg
    decoder = DeviceJpegDecoder(compute)
    check_pixels(decoder)
    return decoder


def check_pixels(decoder: DeviceJpegDecoder, folder: Path = PHOTOGRAPHS) -> None:
    """Compare the pixels with those of the CPU, on the plain photographs of a folder.

    Raises:
        UserError: they differ by more than one grey level on average, or one value in a hundred by more than 16; or the
            folder has no plain photograph.
    """
    compared = 0
    for path in sorted(folder.glob("*.jpg")):
        data = path.read_bytes()
        if not is_plain(data):
            continue
        compared += 1
        difference = np.abs(decoder.decode(data).cpu().numpy().astype(int) - decode_jpeg(data, "RGB")[0])
        mean, large = difference.mean(), (difference > _LARGE).mean()
        if mean > _MEAN_LIMIT or large > _LARGE_SHARE:
            raise UserError(
                f"--compute.jpeg device: on this machine the pixels of {path.name} are {mean:.2f} grey levels from "
                f"those of the CPU, {large:.1%} of them more than {_LARGE}; leave it out"
            )
    if not compared:
        raise UserError(
            f"--compute.jpeg device compares decoders on the demo's photographs, and {folder} has none; run the job "
            "from a clone of the project, or leave it out"
        )


def is_plain(data: bytes) -> bool:
    """Whether a JPEG is one that every decoder knows, without damage or deviations from the standard."""
    if read_frame(data) != _PLAIN:
        return False
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=_SMALLEST, strict=True)
    except ValueError:
        return False
    return True
