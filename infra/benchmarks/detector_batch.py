"""Measure the detector's batch size: time per image in batches of 1 and of 8, alternating, medians of the ratios.

uv run infra/benchmarks/detector_batch.py
uv run infra/benchmarks/detector_batch.py --precision float32 --rounds 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np

from pipeline.detectors import Detector, build_detector, yolov3_spp
from pipeline.detectors.darknet import Darknet
from pipeline.detectors.darknet_detector import DarknetDetector
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings

IMAGES = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["auto", "bf16", "float32"], default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    arguments = parser.parse_args()
    compute = Compute.resolve("auto", arguments.precision)
    r = np.random.default_rng(0)
    images = [r.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(IMAGES)]
    made = compute.describe()
    print(f"{made['precision']} on {made['device']}, {arguments.rounds} rounds of {IMAGES} images of 640x480")
    for name, build in (("NanoDet-g at 512", _small), ("YOLOv3-SPP at 608", _large)):
        detectors = [build(1, compute), build(8, compute)]
        for detector in detectors:  # a warm-up
            _seconds(detector, images)
        rounds = [[_seconds(detector, images) for detector in detectors] for _ in range(arguments.rounds)]
        ratio = statistics.median(one / eight for one, eight in rounds)
        milliseconds = 1000 * statistics.median(one for one, _ in rounds) / IMAGES
        print(f"{name:20s} batches of 1: {milliseconds:.0f} ms per image, {ratio:.2f} times that of batches of 8")
    return 0


def _small(batch: int, compute: Compute) -> Detector:
    detector = build_detector(DetectorSettings(batch=batch), compute)
    assert detector is not None
    return detector


def _large(batch: int, compute: Compute) -> Detector:
    settings = DetectorSettings(input_size=608, confidence=0.9999, weak_confidence=None, batch=batch)
    return DarknetDetector.of(Darknet(yolov3_spp.describe()), settings, compute)


def _seconds(detector: Detector, images: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for i in range(0, len(images), detector.batch):
        detector.detect(images[i : i + detector.batch])
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
