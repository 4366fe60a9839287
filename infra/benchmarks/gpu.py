"""Measure a GPU: its roofs, a whole worker, the networks in every way to run them, and the decoding of JPEG.

examples:
  python infra/benchmarks/gpu.py --minutes 9 --output gpu
  python infra/benchmarks/gpu.py --device cpu --size 96 --images 8 --output trial     the same without a GPU, to try it

Needs torch, torchvision, OpenCV and numpy alone: no Ray. Networks are YOLOv3-SPP and FastPose R50 with random weights,
photographs those of the demo at 640x480, with three given boxes each. What is worth most comes first, and the table is
written again after each measurement, so that a run that is cut short still tells it. Ratios compare measurements of the
same run. A measurement that fails has its error in the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from pipeline.detectors import yolov3_spp  # noqa: E402
from pipeline.detectors.batch_selection import select_batch  # noqa: E402
from pipeline.detectors.darknet import Darknet  # noqa: E402
from pipeline.detectors.letterbox import DARKNET, LetterboxBatch  # noqa: E402
from pipeline.pose import build_pose_model  # noqa: E402
from pipeline.pose.crop import CropBatch, CropRule, subtract_mean  # noqa: E402
from pipeline.pose.heatmap import decode_argmax  # noqa: E402
from pipeline.runtime.device import Compute, Precision  # noqa: E402
from pipeline.runtime.torch import TorchNetwork  # noqa: E402

PEOPLE = 3
POSE_BATCH = 32
DETECTOR_BATCH = 8
RULE = CropRule((256, 192))
PHOTO = (640, 480)  # width and height
BOXES = np.array([[20, 40, 240, 460], [200, 30, 420, 450], [390, 60, 630, 470]], np.float32)


class Bench:
    """The measurements, with what they share; each gives a row for the table."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device(arguments.device)
        self.size = arguments.size
        self.threads = arguments.threads
        self.count = arguments.images
        self.precisions: tuple[Precision, ...] = ("bf16", "fp16") if self.device.type == "cuda" else ("float32",)
        self.roofs: dict[str, float] = {}  # TFLOP/s by precision

    def compute(self, precision: Precision, warps: bool = True) -> Compute:
        name = "cuda" if self.device.type == "cuda" else "cpu"
        return Compute.resolve(name, precision, "torch", "torch" if warps else "opencv")

    def measurements(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Name and function, the most worth first."""
        for precision in self.precisions:
            yield f"matrix multiplication, {precision}", partial(self.matmul, precision)
        yield "copy on the device", self.copy
        yield f"worker, {self.precisions[0]}", partial(self.worker, self.precisions[0])
        for mode in ("eager", "graph", "compiled"):
            for precision in self.precisions:
                for name, batches in (("detector", (DETECTOR_BATCH, 16)), ("pose", (POSE_BATCH, 64))):
                    for batch in batches:
                        yield (
                            f"{name}, {precision}, batch {batch}, {mode}",
                            partial(self.network, name, precision, batch, mode),
                        )
        for threads in (1, 4, 8, 16):
            yield f"decode on the CPU, {threads} threads", partial(self.decode, threads)
        yield "decode on the device", self.decode_on_device
        yield "upload of a photograph", self.upload

    @cached_property
    def photographs(self) -> list[bytes]:
        """JPEG files of 640x480 pixels."""
        encoded = []
        for path in sorted((PROJECT / "configs" / "demo" / "photos").iterdir()):
            image = cv2.imread(str(path))
            if image is not None and path.stem != "cut_short":
                encoded.append(
                    cv2.imencode(".jpg", cv2.resize(image, PHOTO, interpolation=cv2.INTER_AREA))[1].tobytes()
                )
        return [encoded[i % len(encoded)] for i in range(self.count)]

    def detector(self, precision: Precision) -> nn.Module:
        torch.manual_seed(0)
        return TorchNetwork(Darknet(yolov3_spp.describe(self.size)), self.compute(precision)).module

    def poses(self, precision: Precision) -> nn.Module:
        torch.manual_seed(0)
        return TorchNetwork(build_pose_model("fastpose_r50"), self.compute(precision)).module

    def seconds(self, work: Callable[[], object], least: float = 1.5) -> float:
        """The median time of a call, after three that do not count."""
        for _ in range(3):
            work()
        times: list[float] = []
        end = time.perf_counter() + least
        while len(times) < 3 or time.perf_counter() < end:
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def matmul(self, precision: Precision) -> dict[str, Any]:
        side = 8192 if self.device.type == "cuda" else 512
        a = torch.randn(side, side, device=self.device, dtype=self.compute(precision).dtype)
        self.roofs[precision] = 2 * side**3 / self.seconds(lambda: a @ a) / 1e12
        return {"TFLOP/s": self.roofs[precision]}

    def copy(self) -> dict[str, Any]:
        count = 1 << (30 if self.device.type == "cuda" else 24)
        a, b = (torch.zeros(count, dtype=torch.uint8, device=self.device) for _ in range(2))
        return {"GB/s": 2 * count / self.seconds(lambda: b.copy_(a)) / 1e9}

    def network(self, name: str, precision: Precision, batch: int, mode: str) -> dict[str, Any]:
        module = self.detector(precision) if name == "detector" else self.poses(precision)
        size = (self.size, self.size) if name == "detector" else RULE.input_size
        dtype = self.compute(precision).dtype
        inputs = torch.rand(batch, 3, *size, device=self.device).to(dtype, memory_format=torch.channels_last)
        start = time.perf_counter()
        run = self._in_mode(module, inputs, mode)
        with torch.inference_mode():
            run()
            self.wait()
            ready = time.perf_counter() - start
            seconds = self.seconds(run)
        rate = _flops(module, inputs[:1]) * batch / seconds / 1e12
        share = {"of the roof": rate / self.roofs[precision]} if precision in self.roofs else {}
        return {"images/s": batch / seconds, "TFLOP/s": rate, **share, "seconds until ready": ready}

    def _in_mode(self, module: nn.Module, inputs: Tensor, mode: str) -> Callable[[], object]:
        if mode == "compiled":
            module = torch.compile(module, dynamic=False)
        if mode != "graph":
            return lambda: module(inputs)
        side = torch.cuda.Stream()
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(3):
                module(inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            module(inputs)
        return graph.replay

    def worker(self, precision: Precision) -> dict[str, Any]:
        """Photographs to joints as a worker does it, its networks alone, and one image after another."""
        whole = _Worker(self, precision, DETECTOR_BATCH, POSE_BATCH, warps=True)
        single = _Worker(self, precision, 1, PEOPLE, warps=False)
        few = self.photographs[: max(4, self.count // 8)]
        for work in (lambda: whole.annotate(self.photographs), lambda: single.one_by_one(few), whole.networks_alone):
            work()
        rounds = []
        for _ in range(3):  # alternating
            alone = _timed(self, lambda: whole.networks_alone(self.count))
            end_to_end = _timed(self, lambda: whole.annotate(self.photographs))
            unbatched = _timed(self, lambda: single.one_by_one(few)) / len(few) * self.count
            rounds.append((alone, end_to_end, unbatched))
        alone, end_to_end, unbatched = (statistics.median(values) for values in zip(*rounds, strict=True))
        return {
            "images/s": self.count / end_to_end,
            "of the networks alone": alone / end_to_end,
            "times the unbatched way": unbatched / end_to_end,
            "decoding threads": self.threads,
        }

    def decode(self, threads: int) -> dict[str, Any]:
        with ThreadPoolExecutor(threads) as pool:
            seconds = _timed(self, lambda: list(pool.map(_decode, self.photographs)))
        return {"images/s": self.count / seconds}

    def decode_on_device(self) -> dict[str, Any]:
        """With torchvision's decoder; the device is idle before each call (pytorch/vision issue 9606)."""
        from torchvision.io import ImageReadMode, decode_jpeg

        data = [torch.frombuffer(bytearray(photo), dtype=torch.uint8) for photo in self.photographs]

        def batches() -> list[Tensor]:
            found: list[Tensor] = []
            for start in range(0, len(data), 64):
                self.wait()
                found += decode_jpeg(data[start : start + 64], ImageReadMode.RGB, device=self.device.type)
            self.wait()
            return found

        batches()
        seconds = _timed(self, batches)
        expected = [_decode(photo) for photo in self.photographs[:8]]
        found = [image.permute(1, 2, 0).cpu().numpy() for image in batches()[:8]]
        apart = np.stack([np.abs(a.astype(int) - b) for a, b in zip(found, expected, strict=True)])
        return {
            "images/s": self.count / seconds,
            "largest difference": int(apart.max()),
            "mean difference": apart.mean(),
        }

    def upload(self) -> dict[str, Any]:
        compute, image = self.compute(self.precisions[0]), _decode(self.photographs[0])
        return {"images/s": 1 / self.seconds(lambda: compute.upload(image))}


class _Worker:
    """What a worker does with photographs, without files and tables."""

    def __init__(self, bench: Bench, precision: Precision, images: int, people: int, warps: bool) -> None:
        self._bench, self._compute = bench, bench.compute(precision, warps)
        self._images, self._people = images, people
        self._detector, self._poses = bench.detector(precision), bench.poses(precision)
        self._letterboxes = LetterboxBatch(images, (bench.size, bench.size), DARKNET, self._compute)
        self._crops = CropBatch([RULE], people, self._compute)

    def annotate(self, photographs: Sequence[bytes]) -> None:
        """Threads decode ahead, and the detector is a batch ahead of the poses."""
        with ThreadPoolExecutor(self._bench.threads) as decoding, ThreadPoolExecutor(1) as detecting:
            images = map(self._compute.upload, decoding.map(_decode, photographs))
            groups = iter(lambda: [image for image, _ in zip(images, range(self._images), strict=False)], [])
            ahead = None
            for group in groups:
                found = detecting.submit(self._detect, group)
                if ahead is not None:
                    self._pose(*ahead)
                ahead = (group, found)
            if ahead is not None:
                self._pose(*ahead)
            self._run_poses()

    def one_by_one(self, photographs: Sequence[bytes]) -> None:
        """As a simple script does it: scaled and cropped by OpenCV, and a network call for each image."""
        for photo in photographs:
            image = _decode(photo)
            self._detect([image])
            self._crops.add(image, BOXES)
            self._run_poses()

    def networks_alone(self, count: int = DETECTOR_BATCH) -> None:
        size = self._bench.size
        with torch.inference_mode():
            squares = self._ready(self._images, (size, size))
            people = self._ready(self._people, RULE.input_size)
            for _ in range(-(-count // self._images)):
                self._detector(squares)
            for _ in range(-(-count * PEOPLE // self._people)):
                self._poses(people)
        self._bench.wait()

    def _ready(self, batch: int, size: tuple[int, int]) -> Tensor:
        zeros = torch.zeros(batch, 3, *size, device=self._compute.device, dtype=self._compute.dtype)
        return zeros.contiguous(memory_format=torch.channels_last)

    def _input(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._compute.dtype, memory_format=torch.channels_last)

    def _detect(self, images: Sequence[Any]) -> None:
        with torch.inference_mode():
            _, pixels = self._letterboxes.fill(images)
            predictions = self._detector(self._input(pixels / 255))
            select_batch(predictions[: len(images)], 0.9999, 0.6, 100)  # random weights find nobody

    def _pose(self, images: Sequence[Any], found: Any) -> None:
        found.result()
        for image in images:
            added = 0
            while added < PEOPLE:
                boxes = BOXES[added : added + self._crops.room]
                self._crops.add(image, boxes)
                added += len(boxes)
                if not self._crops.room:
                    self._run_poses()

    def _run_poses(self) -> None:
        if self._crops.room == self._people:
            return
        with torch.inference_mode():
            (crops,), (boxes,) = self._crops.take()
            pixels = crops if isinstance(crops, Tensor) else self._compute.to_input(torch.from_numpy(crops))
            decode_argmax(self._poses(self._input(subtract_mean(pixels))), boxes)


def _decode(photo: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR_RGB)


def _timed(bench: Bench, work: Callable[[], object]) -> float:
    bench.wait()
    start = time.perf_counter()
    work()
    bench.wait()
    return time.perf_counter() - start


def _flops(module: nn.Module, inputs: Tensor) -> int:
    """Operations for one image; a multiplication and an addition are two."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(inputs)
    return counter.get_total_flops()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="no measurement starts after this (default: 9)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the table and of results.jsonl")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    parser.add_argument("--size", type=int, default=608, help="side of the detector's input (default: 608)")
    parser.add_argument("--images", type=int, default=512, help="photographs (default: 512)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that decode (default: all cores)")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu tries the script without one")
    end = time.monotonic() + 60 * arguments.minutes
    arguments.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    rows: list[tuple[str, dict[str, Any]]] = []
    with open(arguments.output / "results.jsonl", "a") as log:
        for name, measure in bench.measurements():
            if time.monotonic() > end:
                rows.append((name, {"not measured": "no time left"}))
                continue
            try:
                row = measure()
            except Exception as error:  # what fails tells something, too
                row = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            rows.append((name, row))
            log.write(json.dumps({"name": name, **row}) + "\n")
            log.flush()
            print(name, _cells(row), flush=True)
            (arguments.output / "table.md").write_text(_table(rows, arguments))
    (arguments.output / "table.md").write_text(_table(rows, arguments))
    return 0


def _table(rows: Sequence[tuple[str, dict[str, Any]]], arguments: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    lines = [
        f"# {device}, {datetime.date.today()}",
        "",
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, {arguments.threads} CPU threads; "
        f"`python infra/benchmarks/gpu.py --output {arguments.output.name}`",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cells(row)} |" for name, row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
