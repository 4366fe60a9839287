"""Compare pose networks: arithmetic, size, speed and accuracy, for example of pruned ones with the one they come from.

uv run infra/benchmarks/pruned_networks.py FIRST.safetensors OTHER.safetensors --annotations val.json --images images

Speeds are relative to the first network, in float32 and batches of 8 crops, all networks in turn in one process.
Accuracy is measured in the annotated boxes, without a flip test.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.pose.checkpoint import load_checkpoint
from pipeline.pose.estimator import PoseEstimator
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network
from pipeline.settings.tree import PoseSettings
from pipeline.training.pose.validation import PoseValidation
from pipeline.training.settings import AnnotatedSet
from pipeline.weights.checkpoints import read_state_dict

RUNTIMES = ("torch", "onnx")
BATCH = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", type=Path, help="weights of pose networks of this project")
    parser.add_argument("--annotations", required=True, help="COCO annotations with keypoints")
    parser.add_argument("--images", required=True, help="folder of the annotated images")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the speed (default: 15)")
    arguments = parser.parse_args()
    annotated = AnnotatedSet(annotations=arguments.annotations, images=arguments.images)
    rows = []
    for path in arguments.weights:
        module, architecture = load_pose_network(read_state_dict(path), str(path))
        settings = PoseSettings(weights=str(path))
        estimator = PoseEstimator.from_settings(settings, Compute.resolve("cpu", "float32", "torch"))
        size = estimator.rules[0].input_size
        validation = PoseValidation.read(annotated, estimator.skeleton)
        poses = [found for _, found in validation.poses(estimator, Compute.resolve("cpu", "float32", "torch"))]
        accuracy = validation.accuracy(poses)
        numbers = [
            f"{_gflops(module, size):.2f}",
            f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f}",
            f"{accuracy.ap:.3f}",
            f"{accuracy.pck_body:.3f}",
        ]
        rows.append([str(architecture), *numbers])
    crops = torch.rand(BATCH, 3, *size)
    for runtime in RUNTIMES:
        compute = Compute.resolve("cpu", "float32", runtime)
        networks = [load_checkpoint(PoseSettings(weights=str(path)), compute).network for path in arguments.weights]
        for row, speed in zip(rows, _speeds(networks, crops, arguments.rounds), strict=True):
            row.append(f"{speed:.2f}")
    print("| network | GFLOPs | million parameters | AP | PCK of the body | speed, torch | speed, onnx |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0


def _gflops(network: nn.Module, size: tuple[int, int]) -> float:
    """Of one crop: two for each multiplication and addition."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, *size))
    return counter.get_total_flops() / 1e9


def _speeds(networks: list[Network], crops: torch.Tensor, rounds: int) -> list[float]:
    """Median over the rounds of the first network's time divided by each one's."""
    ratios: list[list[float]] = [[] for _ in networks]
    for _ in range(rounds + 1):
        times = []
        for network in networks:
            start = time.perf_counter()
            with torch.inference_mode():
                network(crops)
            times.append(time.perf_counter() - start)
        for collected, seconds in zip(ratios, times, strict=True):
            collected.append(times[0] / seconds)
    return [statistics.median(collected[1:]) for collected in ratios]


if __name__ == "__main__":
    sys.exit(main())
