"""Decode damaged images.

python images.py SEED COUNT. Prints counts as JSON; a wrong exception ends it with a traceback.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import tifffile
from fuzz.mutate import mutated
from PIL import Image

from pipeline.images import DecodeLimits, ImageRefused, decode_image

_LIMITS = DecodeLimits(max_megapixels=4)


def originals() -> Iterator[tuple[str, bytes]]:
    """Small files of all formats and of many of their variants."""
    r = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 60 * 80 * 3).reshape(60, 80, 3)
    pixels = np.clip(smooth + r.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    rgb = Image.fromarray(pixels)
    rgba = Image.fromarray(np.dstack([pixels, pixels[:, :, 0]]))
    exif = Image.Exif()
    exif[274] = 6

    def saved(image: Image.Image, form: str, **options: object) -> tuple[str, bytes]:
        sink = io.BytesIO()
        image.save(sink, form, **options)
        return form, sink.getvalue()

    yield saved(rgb, "JPEG", exif=exif)
    yield saved(rgb, "JPEG", progressive=True, quality=95)
    yield saved(rgb, "JPEG", restart_marker_blocks=4)
    yield saved(rgb.convert("L"), "JPEG")
    yield saved(rgb.convert("CMYK"), "JPEG")
    yield saved(rgb, "PNG", exif=exif)
    yield saved(rgba, "PNG")
    yield saved(rgb.quantize(16), "PNG", transparency=0)
    yield saved(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "PNG")
    yield saved(rgb, "WEBP", exif=exif)
    yield saved(rgba, "WEBP", lossless=True)
    yield saved(rgb, "WEBP", save_all=True, append_images=[rgba.convert("RGB")])
    yield saved(rgb, "BMP")
    yield saved(rgb.quantize(16), "BMP")
    yield saved(rgb.quantize(64), "GIF", save_all=True, append_images=[rgb.quantize(32)])
    for options in ({"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_adobe_deflate"}, {}):
        yield saved(rgb, "TIFF", **options)
    yield saved(rgb.quantize(16), "TIFF")
    yield saved(rgb.convert("1"), "TIFF", compression="group4")
    deep = pixels.astype(np.uint16) * 257
    for options in ({}, {"tile": (16, 16), "compression": "zlib"}, {"compression": "lzw", "predictor": True}):
        sink = io.BytesIO()
        tifffile.imwrite(sink, deep, photometric="rgb", **options)
        yield "TIFF", sink.getvalue()
    sink = io.BytesIO()
    tifffile.imwrite(sink, deep.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    yield "TIFF", sink.getvalue()


def main(seed: int, count: int) -> None:
    files = list(originals())
    statuses: Counter[str] = Counter()
    slowest = 0.0
    for number in range(count):
        form, data = files[number % len(files)]
        damaged = mutated(data, np.random.default_rng([seed, number]))
        started = time.monotonic()
        try:
            image = decode_image(damaged, _LIMITS)
        except ImageRefused as refused:
            status = refused.status if str(refused) else "no reason"
            statuses[status] += 1
        else:
            assert image.pixels.dtype == np.uint8, (form, number)
            assert image.pixels.ndim == 3, (form, number)
            assert image.pixels.shape[2] == 3, (form, number)
            statuses["warning" if image.warning else "ok"] += 1
        slowest = max(slowest, time.monotonic() - started)
    print(json.dumps({"statuses": statuses, "slowest_seconds": round(slowest, 3)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
