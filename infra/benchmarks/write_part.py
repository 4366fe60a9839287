"""Time to encode parts of several sizes, for images with three people each: what a part costs, and what an image.

uv run infra/benchmarks/write_part.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from pipeline.people import People
from pipeline.run.tables import ImageRow, encode_part

SIZES = (1, 10, 100, 1000)
ROUNDS = 15
_JOINTS, _PEOPLE = 17, 3


def people_of(random: np.random.Generator) -> People:
    boxes = np.sort(random.random((_PEOPLE, 2, 2), np.float32) * 640, axis=1).reshape(_PEOPLE, 4)
    scores, joints = random.random(_PEOPLE, np.float32), random.random((_PEOPLE, _JOINTS, 3), np.float32)
    return People(boxes, scores, joints[..., :2] * 640, joints[..., 2], scores)


def encode(count: int, random: np.random.Generator) -> float:
    """Seconds for a part of this many images."""
    rows = [ImageRow(f"{i:012}.jpg", f"images/{i:012}.jpg", i, "0" * 64, 640, 480, 1) for i in range(count)]
    people = [people_of(random) for _ in range(count)]
    started = time.perf_counter()
    encode_part(rows, people, None, People.empty(_JOINTS), {"shard": "0"})
    return time.perf_counter() - started


def main() -> None:
    random = np.random.default_rng(0)
    first = encode(1, random)
    print(f"first part of a process, 1 image: {first * 1000:.1f} ms")
    for count in SIZES:
        seconds = statistics.median(encode(count, random) for _ in range(ROUNDS))
        print(f"{count:5d} images: {seconds * 1000:8.2f} ms, {seconds * 1000 / count:.3f} ms an image")


if __name__ == "__main__":
    main()
