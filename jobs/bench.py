"""Measure one worker: images/s end to end, relative to its networks alone and to a loop without batches.

examples:
  uv run jobs/bench.py                                   YOLOv3-SPP 608 + FastPose R50, random weights
  uv run jobs/bench.py --images 64 --rounds 5 --precision float32
  uv run jobs/bench.py --input my/photos --people 5

End to end means what a worker does: read, decode, letterbox, detect, select, crop, pose, decode, suppress, encode,
write, two shards at a time. The detector runs, but with random weights it detects no one, so the boxes for the pose
network are given. The loop without batches reads, detects and poses one image after another, as a simple script would.
The measurements alternate; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.annotator import Annotator
from pipeline.detectors import yolov3_spp
from pipeline.detectors.darknet import Darknet
from pipeline.detectors.darknet_detector import DarknetDetector
from pipeline.images import decode_image
from pipeline.parts import PartWriter
from pipeline.people import Boxes, People
from pipeline.pose import build_pose_model
from pipeline.pose.crop import crop_boxes, cut_crops
from pipeline.pose.estimator import PoseEstimator
from pipeline.pose.heatmap import decode_argmax
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.process.memory import bound_allocator
from pipeline.run import Run
from pipeline.runtime.device import Compute, Image, pin_threads
from pipeline.settings.tree import Settings
from pipeline.sources import plan_collection, write_manifest
from pipeline.suppression import pose_nms
from pipeline.weights.catalogue import local_file
from pipeline.weights.checkpoints import read_state_dict

SHIPPED = "fastpose_lite0_coco17"
DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo" / "photos"


class _GivenAfterDetecting:
    """Runs the detector for its cost, then returns a grid of boxes in each image."""

    def __init__(self, detector: DarknetDetector, people: int) -> None:
        self.batch = detector.batch
        self._detector = detector
        self._people = people

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        self._detector.detect(images)
        return [_grid(image.shape[1], image.shape[0], self._people) for image in images]


def _grid(width: int, height: int, people: int) -> Boxes:
    left = np.linspace(0, width * 0.6, people)
    boxes = np.stack([left, np.full(people, height * 0.1), left + width * 0.4, np.full(people, height * 0.9)], axis=1)
    return Boxes(boxes, np.ones(people))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, default=DEMO, help="folder of photographs (default: the demo's)")
    parser.add_argument("--images", type=int, default=64, help="images per round, photographs repeated (default: 64)")
    parser.add_argument("--people", type=int, default=3, help="people per image (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp16", "float32"], default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    arguments = parser.parse_args(argv)
    bound_allocator()
    pin_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        _end_to_end(Path(folder), arguments)
    _as_published(arguments)
    _pieces()
    return 0


def _end_to_end(folder: Path, arguments: argparse.Namespace) -> None:
    count = _copy_photographs(arguments.input, folder / "in", arguments.images)
    settings = Settings.model_validate(
        {
            "input": {"uri": str(folder / "in"), "shard_size": -(-count // 2)},
            "output": str(folder / "run"),
            "detector": {"name": "darknet", "input_size": 608, "confidence": 0.9999, "weak_confidence": None},
            "pose": {"name": "fastpose_r50", "weights": None},
            "compute": {"precision": arguments.precision},
        }
    )
    compute = Compute.resolve(settings.compute.device, settings.compute.precision, settings.compute.runtime)
    torch.manual_seed(0)
    detector = DarknetDetector.of(Darknet(yolov3_spp.describe()), settings.detector, compute)
    poses = PoseEstimator.from_settings(settings.pose, compute)
    annotator = Annotator(_GivenAfterDetecting(detector, arguments.people), poses, settings.suppression, compute)
    run = Run.create(settings)
    write_manifest(run.manifest_uri, plan_collection(settings.input))
    shards = list(run.manifest().shards())
    decoders = torch.get_num_threads() if compute.device.type == "cuda" else 1  # as a worker has
    writer = PartWriter(run, annotator, decoders=decoders)

    detector_batches = sum(-(-shard.num_images // detector.batch) for shard in shards)
    pose_batches = sum(-(-shard.num_images * arguments.people // settings.pose.batch) for shard in shards)
    squares = torch.rand(detector.batch, 3, 608, 608).to(compute.device, compute.dtype)
    squares = squares.contiguous(memory_format=torch.channels_last)
    crops = torch.rand(settings.pose.batch, 3, *poses.rules[0].input_size).to(compute.device, compute.dtype)
    crops = crops.contiguous(memory_format=torch.channels_last)

    def networks_alone() -> None:
        with torch.inference_mode():
            for _ in range(detector_batches):
                detector.network(squares)
            for _ in range(pose_batches):
                poses.networks[0].network(crops)
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    def end_to_end() -> None:
        with ThreadPoolExecutor(2) as pool:  # a worker holds two shards
            list(pool.map(lambda shard: list(writer.annotate(shard)), shards))

    single = DarknetDetector.of(
        Darknet(yolov3_spp.describe()), settings.detector.model_copy(update={"batch": 1}), compute
    )
    few = PoseEstimator.from_settings(settings.pose.model_copy(update={"batch": arguments.people}), compute)
    one_by_one = Annotator(_GivenAfterDetecting(single, arguments.people), few, settings.suppression, compute)

    def no_batches() -> None:
        for shard in shards:
            for uri in shard.uris:
                one_by_one.annotate([decode_image(Path(uri).read_bytes()).pixels])

    for work in (networks_alone, end_to_end, no_batches):
        work()
    alone, whole, unbatched = [], [], []
    for _ in range(arguments.rounds):
        alone.append(_seconds(networks_alone))
        whole.append(_seconds(end_to_end))
        unbatched.append(_seconds(no_batches))
    ratio = statistics.median(a / w for a, w in zip(alone, whole, strict=True))
    gain = statistics.median(u / w for u, w in zip(unbatched, whole, strict=True))
    made = compute.describe()
    print(f"YOLOv3-SPP 608 + FastPose R50, {made['precision']} on {made['device']}, {torch.get_num_threads()} threads,")
    print(f"{count} images x {arguments.people} people, {len(shards)} shards, medians of {arguments.rounds} rounds")
    print(f"networks alone  {count / statistics.median(alone):8.2f} images/s")
    print(f"end to end      {count / statistics.median(whole):8.2f} images/s")
    print(f"no batches      {count / statistics.median(unbatched):8.2f} images/s")
    print(f"end to end relative to the networks alone {ratio:.3f}, relative to no batches {gain:.2f}")


def _as_published(arguments: argparse.Namespace) -> None:
    """The speed of a network prepared for inference, relative to the same network in float32 as published."""
    compute = Compute.resolve("auto", arguments.precision)

    def run(model: nn.Module, batch: Tensor) -> None:
        with torch.inference_mode():
            model(batch)
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    shipped, _ = load_pose_network(read_state_dict(local_file(SHIPPED)), SHIPPED)
    for name, network in (("FastPose R50", build_pose_model("fastpose_r50")), (SHIPPED, shipped)):
        network = network.eval().requires_grad_(False).to(compute.device)
        crops = torch.rand(32, 3, 256, 192, device=compute.device)
        prepared = compute.prepare(copy.deepcopy(network))
        ready = crops.to(compute.dtype).contiguous(memory_format=torch.channels_last)

        pairs = [(partial(run, network, crops), partial(run, prepared, ready))] * 6
        ratios = [_seconds(plain) / _seconds(fast) for plain, fast in pairs][1:]  # the first is a warm-up
        precision = compute.describe()["precision"]
        print(f"{name} in {precision}, folded, channels last: {statistics.median(ratios):.1f} times as fast as")
        print(f"  in float32 as published (median of 5 rounds, {min(ratios):.1f} to {max(ratios):.1f})")


def _copy_photographs(source: Path, target: Path, count: int) -> int:
    readable = []
    for path in sorted(source.iterdir()):
        try:
            decode_image(path.read_bytes())
            readable.append(path)
        except Exception:
            continue
    if not readable:
        raise SystemExit(f"bench: no readable images in {source}")
    target.mkdir()
    for i in range(count):
        path = readable[i % len(readable)]
        (target / f"{i:05d}{path.suffix}").write_bytes(path.read_bytes())
    return count


def _pieces() -> None:
    r = np.random.default_rng(0)
    corner = r.random((60, 2)) * 600
    joints = corner[:, None] + r.random((60, 17, 2)) * 200
    people = People(np.hstack([corner, corner + 200]), r.random(60), joints, r.random((60, 17)), np.zeros(60))
    heatmaps = torch.from_numpy(r.random((64, 17, 64, 48), dtype=np.float32))
    boxes = np.hstack([corner, corner + 200])[np.arange(64) % 60]
    photograph = r.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    matrices, cropped = crop_boxes(boxes, (256, 192))
    for name, work in (
        ("suppress 60 people", lambda: pose_nms(people)),
        ("decode 64 crops", lambda: decode_argmax(heatmaps, cropped)),
        ("crop 64 boxes of 1280x720", lambda: cut_crops(photograph, matrices, (256, 192))),
    ):
        work()
        times = [_seconds(work) for _ in range(50)]
        print(f"{name:26s} {statistics.median(times) * 1e3:8.2f} ms, median of 50")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
