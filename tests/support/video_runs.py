"""Synthetic runs of videos: tables of people who walk, without networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.reduction import reduce_run
from pipeline.run.tables import ImageRow, encode_part, skeleton_metadata
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS
from pipeline.sources import PlannedShard, write_manifest

SKELETON = SKELETONS["coco17"]
_POSE = np.random.default_rng(0).uniform(0.1, 0.9, (17, 2))


def walkers(*lefts: float) -> People:
    """People of 60 x 180 pixels, with these left edges; all have the same pose."""
    boxes = np.array([[left, 50, left + 60, 230] for left in lefts]).reshape(-1, 4)
    keypoints = boxes[:, None, :2] + _POSE * (60, 180)
    count = len(boxes)
    return People(boxes, np.ones(count), keypoints.reshape(-1, 17, 2), np.ones((count, 17)), np.ones(count))


def video(name: str, frames: range, *starts: float, step: float = 3) -> list[tuple[ImageRow, People]]:
    """Frames of a video at 25 frames a second; each person goes `step` pixels to the right in each frame."""
    return [
        (
            ImageRow(f"{name}/{n:09d}", "", None, None, 640, 480, 1, video=name, frame=n, pts=n, seconds=n / 25),
            walkers(*(start + step * n for start in starts)),
        )
        for n in frames
    ]


def photo(name: str) -> tuple[ImageRow, People]:
    """An image with three people that is no frame."""
    return ImageRow(name, "", None, "ab", 640, 480, 1), walkers(10, 200, 400)


def make_run(folder: Path, *shards: list[tuple[ImageRow, People]]) -> Run:
    """A reduced run with these images."""
    (folder / "in").mkdir(parents=True)
    settings = Settings.model_validate({"input": {"uri": str(folder / "in")}, "output": {"uri": str(folder / "run")}})
    run = Run.create(settings)
    planned = [
        PlannedShard(kind="files", keys=(str(i),), uris=("",), sizes=(0,), etags=("",), num_images=len(images))
        for i, images in enumerate(shards)
    ]
    storage.write_bytes(run.path("run.json"), json.dumps(_described(run)).encode())
    write_manifest(run.manifest_uri, planned, run.fingerprint)
    for i, images in enumerate(shards):
        shard = planned[i].at(i).id
        metadata = {"shard": shard, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
        rows, people = [row for row, _ in images], [found for _, found in images]
        storage.write_bytes(run.part_uri(shard), encode_part(rows, people, None, People.empty(17), metadata))
    reduce_run(run)
    return run


def _described(run: Run) -> dict:
    return {"fingerprint": run.fingerprint, "settings": run.settings.model_dump(mode="json"), "results": {}}
