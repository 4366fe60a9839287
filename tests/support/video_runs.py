"""Synthetic runs of videos: tables of people who walk, without networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline import storage
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.reduction import reduce_run
from pipeline.run.tables import ImageRow, encode_part, skeleton_metadata
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.sources import PlannedShard, read_shard, write_manifest

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


def gait(frames: int) -> list[tuple[ImageRow, People]]:
    """A person of 180 pixels who walks to the right for `frames` frames, one stride a second."""
    images = video("walk.mp4", range(frames), 100)
    for t, (_, people) in zip(np.arange(frames) / 25, images, strict=True):
        joints = people.keypoints[0]
        hip = people.boxes[0, 0] + 30
        for i, name in enumerate(SKELETON.joints):
            side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
            height = 15 if i < 5 else 35 if "shoulder" in name else 90 if "hip" in name else 130
            joints[i] = [hip + (15 if i == 0 else 0), 50 + height]
            if "ankle" in name:
                joints[i] = [hip + side * 40 * np.sin(2 * np.pi * t), 50 + 170]
            if "knee" in name:
                joints[i, 0] = hip + side * 20 * np.sin(2 * np.pi * t) + 5
    return images


def photo(name: str) -> tuple[ImageRow, People]:
    """An image with three people that is no frame."""
    return ImageRow(name, "", None, "ab", 640, 480, 1), walkers(10, 200, 400)


def make_run(
    folder: Path,
    *shards: list[tuple[ImageRow, People]],
    weak: Mapping[str, People] = MappingProxyType({}),
    skeleton: Skeleton = SKELETON,
) -> Run:
    """A reduced run with these images, and weak people by image id."""
    (folder / "in").mkdir(parents=True)
    settings = Settings.model_validate({"input": {"uri": str(folder / "in")}, "output": {"uri": str(folder / "run")}})
    run = Run.create(settings)
    planned = [
        PlannedShard(kind="files", keys=(str(i),), uris=("",), sizes=(0,), etags=("",), num_images=len(images))
        for i, images in enumerate(shards)
    ]
    storage.write_bytes(run.path("run.json"), json.dumps(_described(run)).encode())
    write_manifest(run.manifest_uri, planned, run.fingerprint)
    nobody = People.empty(len(skeleton))
    for i, images in enumerate(shards):
        shard = planned[i].at(i).id
        metadata = {"shard": shard, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(skeleton)}
        rows, people = [row for row, _ in images], [found for _, found in images]
        extra = [weak.get(row.image_id, nobody) for row in rows] if any(row.video for row in rows) else None
        storage.write_bytes(run.part_uri(shard), encode_part(rows, people, None, nobody, metadata, extra))
    reduce_run(run)
    return run


def _described(run: Run) -> dict:
    return {
        "fingerprint": run.fingerprint,
        "settings": run.settings.model_dump(mode="json"),
        "results": {"digests": {}},
        "versions": {},
    }


def make_clip_run(folder: Path, clips: Mapping[str, Sequence[People]], every: int = 1) -> Run:
    """A reduced run on videos in `folder / "in"`, with the people of each frame, by name of the video."""
    source = {"uri": str(folder / "in"), "shard_size": 10, "video": {"every": every}}
    settings = Settings.model_validate(
        {"input": source, "output": str(folder / "run"), "detector": {"name": "whole_image"}}
    )
    run = Run.create(settings)
    for shard in run.plan().shards():
        rows, people = [], []
        for item in read_shard(shard, settings.images.limits):
            assert item.position is not None
            place = item.position
            width, height = (None, None) if item.status != "ok" else (96, 64)
            rows.append(ImageRow(item.key, item.uri, None, None, width, height, 1, item.status, item.error))
            rows[-1].video, rows[-1].frame, rows[-1].pts, rows[-1].seconds = place
            people.append(clips[place.video][place.frame or 0] if item.status == "ok" else People.empty(17))
        metadata = {"shard": shard.id, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
        nobody = People.empty(17)
        part = encode_part(rows, people, None, nobody, metadata, weak=[nobody] * len(rows))
        storage.write_bytes(run.part_uri(shard.id), part)
    reduce_run(run)
    return run
