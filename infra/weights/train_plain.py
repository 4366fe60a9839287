"""Continue a training run on a machine that has only torch, torchvision, numpy and OpenCV, such as a borrowed GPU.

1. On a machine with the project's environment; stop it after the first checkpoint:
     uv run jobs/train.py --config CONFIG --output RUN --cache SAMPLES.npz
2. On the other machine, with RUN/train.json, RUN/checkpoint.pt and the cache (for a detector also its .cfg):
     python infra/weights/train_plain.py RUN SAMPLES.npz [DETECTOR.cfg]
3. On the first machine, with the new RUN/checkpoint.pt; validates and writes the weights:
     uv run jobs/train.py --config CONFIG --output RUN --cache SAMPLES.npz --resume

Rerun the second command to resume after its last completed epoch. Runs with teachers are refused: teacher networks need
more packages.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from pipeline.training.loop import Task, Trainer
from pipeline.training.options import BoxAugmentation, Optimisation, PoseAugmentation


def pose(settings: dict[str, Any], cache: bytes) -> tuple[torch.nn.Module, Task]:
    from pipeline.pose.networks import pose_spec
    from pipeline.skeletons import SKELETONS
    from pipeline.training.pose.data import PeopleSet
    from pipeline.training.pose.losses import PoseLoss
    from pipeline.training.pose.task import PoseTask

    s = settings["pose"]
    skeleton = SKELETONS[s["skeleton"]]
    options = {} if s["conv_dim"] is None else {"conv_dim": s["conv_dim"]}
    spec = pose_spec(s["name"])
    loss = PoseLoss(tuple(s["input_size"]), s["decode"], s["norm"], foreground=s["foreground"])
    augmentation = PoseAugmentation(**s["augmentation"])
    people = PeopleSet.from_bytes(cache)
    task = PoseTask(people, skeleton, augmentation, loss, spec.training_outputs)
    return spec.build(num_joints=len(skeleton), **options), task


def detector(settings: dict[str, Any], cache: bytes) -> tuple[torch.nn.Module, Task]:
    from pipeline.detectors.darknet import Darknet
    from pipeline.training.detector.data import ImageSet
    from pipeline.training.detector.task import DetectorTask

    s = settings["detector"]
    cfg = Path(s["cfg"])
    if not cfg.is_file():
        raise SystemExit(f"{cfg} does not exist; name the detector's .cfg after the cache")
    network = Darknet(cfg.read_text())
    augmentation = BoxAugmentation(**s["augmentation"])
    return network, DetectorTask(ImageSet.from_bytes(cache), network, s["input_size"], augmentation)


def main(run: Path, cache: Path, cfg: Path | None = None) -> None:
    settings = json.loads((run / "train.json").read_text())
    section = settings[settings["task"]]
    if section.get("teachers") or section.get("teacher"):
        raise SystemExit(f"{run} uses a teacher network, which needs more packages; use jobs/train.py --resume")
    if cfg is not None:
        section["cfg"] = str(cfg)
    network, task = {"pose": pose, "detector": detector}[settings["task"]](settings, cache.read_bytes())
    trainer = Trainer(network, task, Optimisation(**settings["optimisation"]))
    checkpoint = run / "checkpoint.pt"
    # The initial weights are in the checkpoint: random ones differ between versions of torch.
    # To the CPU: the optimiser keeps its step count there; a count on the GPU would block every step.
    trainer.load_state(torch.load(checkpoint, map_location="cpu", weights_only=True))
    while trainer.epoch < trainer.options.epochs:
        started = time.monotonic()
        losses = [step.loss for step in trainer.train_epoch()]
        torch.save(trainer.state(), checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").rename(checkpoint)
        mean, seconds = sum(losses) / len(losses), time.monotonic() - started
        print(f"epoch {trainer.epoch}: loss {mean:.6f}, {seconds:.0f} s on {trainer.device}", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
