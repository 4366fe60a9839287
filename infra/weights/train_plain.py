"""Go on with a training run where there is only torch, torchvision, numpy and OpenCV: on a borrowed GPU, say.

  uv run jobs/train.py --config ... --output RUN --cache people.npz     here; stop it when its first checkpoint is there
  python infra/weights/train_plain.py RUN people.npz                            there, with RUN/train.json and the cache;
                                                                        for a detector also its description, .cfg
  uv run jobs/train.py --config ... --output RUN --cache ... --resume   here, with the RUN/checkpoint.pt that it made

The last command measures and writes the weights. Stopped and started again, the second goes on from its last epoch.
Teachers are beyond it: their networks need more than these packages.
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
    from pipeline.pose.networks import build_pose_model, pose_spec
    from pipeline.skeletons import SKELETONS
    from pipeline.training.pose.data import PeopleSet
    from pipeline.training.pose.losses import PoseLoss
    from pipeline.training.pose.task import PoseTask

    told = settings["pose"]
    skeleton = SKELETONS[told["skeleton"]]
    options = {} if told["conv_dim"] is None else {"conv_dim": told["conv_dim"]}
    network = build_pose_model(told["name"], len(skeleton), **options)
    loss = PoseLoss(tuple(told["input_size"]), told["decode"], told["norm"], foreground=told["foreground"])
    outputs = pose_spec(told["name"]).training_outputs
    augmentation = PoseAugmentation(**told["augmentation"])
    return network, PoseTask(PeopleSet.from_bytes(cache), skeleton, augmentation, loss, training_outputs=outputs)


def detector(settings: dict[str, Any], cache: bytes) -> tuple[torch.nn.Module, Task]:
    from pipeline.detectors.darknet import Darknet
    from pipeline.training.detector.data import ImageSet
    from pipeline.training.detector.task import DetectorTask

    told = settings["detector"]
    cfg = Path(told["cfg"])
    if not cfg.is_file():
        raise SystemExit(f"{cfg} is not here: name the detector's description after the cache")
    network = Darknet(cfg.read_text())
    augmentation = BoxAugmentation(**told["augmentation"])
    return network, DetectorTask(ImageSet.from_bytes(cache), network, told["input_size"], augmentation)


def main(run: Path, cache: Path, cfg: Path | None = None) -> None:
    settings = json.loads((run / "train.json").read_text())
    told = settings[settings["task"]]
    if told.get("teachers") or told.get("teacher"):
        raise SystemExit(f"{run} learns from a teacher, who cannot be asked here; use jobs/train.py --resume")
    if cfg is not None:
        told["cfg"] = str(cfg)
    network, task = {"pose": pose, "detector": detector}[settings["task"]](settings, cache.read_bytes())
    trainer = Trainer(network, task, Optimisation(**settings["optimisation"]))
    checkpoint = run / "checkpoint.pt"
    # The first weights come with the run: random ones differ between versions of torch.
    # To the CPU: the optimiser counts its steps there, and a count on a GPU would be waited for at every step.
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
