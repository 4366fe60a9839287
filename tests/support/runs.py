"""Synthetic runs: tables without networks, and annotations that fit them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.images import DecodeLimits
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.reduction import reduce_run
from pipeline.run.tables import ImageRow, encode_part, skeleton_metadata
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS
from pipeline.sources import read_shard
from support.images import encode, gradient

SKELETON = SKELETONS["coco17"]
LIMITS = DecodeLimits(max_megabytes=1)
_BODY = np.random.default_rng(1).random((17, 2)) * (40, 90)


def planned_run(folder: Path, num_images: int, shard_size: int) -> Run:
    """A run on `num_images` small images, planned and without parts."""
    for number in range(num_images):
        storage.write_bytes(str(folder / "photos" / f"{number:03d}.jpg"), encode(gradient()))
    source = {"uri": str(folder / "photos"), "shard_size": shard_size}
    run = Run.create(
        Settings.model_validate({"input": source, "output": str(folder / "run"), "detector": {"name": "whole_image"}})
    )
    run.plan()
    return run


def write_part(
    run: Run, shard: str, people: Sequence[People], candidates: bool = False, coco_ids: bool = False
) -> list[str]:
    """Write the part of a shard with the people of each of its images; returns the ids of the images."""
    ids = [i if coco_ids else None for i in range(len(people))]
    rows = [ImageRow(f"{shard}/{i}.jpg", f"/x/{i}.jpg", id_, None, 640, 480) for i, id_ in enumerate(ids)]
    metadata = {"shard": shard, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
    part = encode_part(rows, people, people if candidates else None, people[0][:0], metadata)
    storage.write_bytes(run.part_uri(shard), part)
    return [row.image_id for row in rows]


def make_truth(folder: Path, names: list[str], people: int = 2) -> Path:
    """Annotations with `people` people in each image; every seventh image has none."""
    r = np.random.default_rng(0)
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        images.append({"id": number, "file_name": name, "source": "odd" if number % 2 else "even"})
        for n in range(people if number % 7 else 0):
            joints = np.column_stack([_BODY + np.array([60.0 * n, 5.0]) + r.normal(0, 3, 2), np.full(17, 2)])
            box = [60.0 * n, 0.0, 50.0, 100.0]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": box,
                    "area": 4000.0,
                    "keypoints": joints.ravel().tolist(),
                    "num_keypoints": 17,
                }
            )
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def make_run(folder: Path, truth: Path, photos: Path, off: float = 4.0, shard_size: int = 1000) -> Run:
    """A reduced run on the annotated images; its joints are the annotated ones with noise of `off` pixels.

    Images whose id is 3 modulo 50 are unreadable.
    """
    content = json.loads(truth.read_text())
    settings = Settings.model_validate(
        {
            "input": {"uri": str(truth), "image_root": str(photos), "shard_size": shard_size},
            "output": str(folder),
            "annotations": str(truth),
            "detector": {"name": "given"},
            "pose": {"weights": None},
        }
    )
    run = Run.create(settings)
    poses_by_image: dict[int, list[np.ndarray]] = {}
    for annotation in content["annotations"]:
        joints = np.array(annotation["keypoints"]).reshape(17, 3)[:, :2]
        poses_by_image.setdefault(annotation["image_id"], []).append(joints)
    ids = {image["file_name"]: image["id"] for image in content["images"]}
    r = np.random.default_rng(2)
    for shard in run.plan().shards():
        rows, people = [], []
        for image in read_shard(shard, LIMITS):
            poses = np.array(poses_by_image.get(ids[image.key], np.zeros((0, 17, 2)))).reshape(-1, 17, 2)
            poses = poses + r.normal(0, off * (1 + ids[image.key] % 3), poses.shape)
            status = "unreadable" if ids[image.key] % 50 == 3 else "ok"
            poses = poses[:0] if status != "ok" else poses
            rows.append(
                ImageRow(
                    image.key, image.uri, ids[image.key], status=status, error=None if status == "ok" else "cut short"
                )
            )
            boxes = np.concatenate([poses.min(axis=1), poses.max(axis=1)], axis=1) if len(poses) else np.zeros((0, 4))
            scores = np.clip(r.normal(0.6, 0.2, (len(poses), 17)), 0, 1)
            people.append(People(boxes, np.ones(len(poses)), poses, scores, scores.sum(axis=1)))
        metadata = {"shard": shard.id, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
        storage.write_bytes(run.part_uri(shard.id), encode_part(rows, people, None, People.empty(17), metadata))
    reduce_run(run)
    return run


POSE = _BODY  # (17, 2), in a box of 40 x 90


def judged_run(
    folder: Path,
    images: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]],
    box_scores: Sequence[float] = (),
    poison: Sequence[str] = (),
    archives: int = 0,
) -> Run:
    """A reduced run whose people are poses of the same shape at given places.

    Args:
        images: for each file name, the places (x, y) of the annotated people and of the predicted ones. The annotations
            are written to `truth.json` above the run; a run beside it may share them.
        box_scores: of the predicted people of an image in their order; by default 0.8.
        poison: images that have this status, and no people.
        archives: number of zip archives that the photographs are spread over; by default they are loose files.
    """
    annotations = []
    for number, (annotated, _) in enumerate(images.values(), 1):
        for place in annotated:
            joints = np.column_stack([POSE + place, np.full(17, 2)])
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "bbox": [*place, 40.0, 90.0],
                    "area": 3000.0,
                    "keypoints": joints.ravel().tolist(),
                }
            )
    photos, truth = folder.parent / "photos", folder.parent / "truth.json"
    photos.mkdir(parents=True, exist_ok=True)
    listed = [{"id": number, "file_name": name} for number, name in enumerate(images, 1)]
    truth.write_text(json.dumps({"images": listed, "annotations": annotations}))
    for number, name in enumerate(images):
        if archives:
            with zipfile.ZipFile(photos / f"{number % archives}.zip", "a") as archive:
                archive.writestr(name, encode(gradient(240, 320)))
        elif not (photos / name).exists():
            (photos / name).parent.mkdir(exist_ok=True)
            (photos / name).write_bytes(encode(gradient(240, 320)))
    settings = {
        "input": {"uri": str(photos)},
        "output": str(folder),
        "annotations": str(truth),
        "detector": {"name": "darknet"},
    }
    run = Run.create(Settings.model_validate(settings))
    for shard in run.plan().shards():
        rows, people = [], []
        for image in read_shard(shard, LIMITS):
            name = image.key.partition(".zip/")[2] or image.key
            places = [] if name in poison else images[name][1]
            poses = np.array([POSE + place for place in places]).reshape(-1, 17, 2)
            row = ImageRow(image.key, image.uri, list(images).index(name) + 1, image.sha256, 320, 240)
            row.status = "poison" if name in poison else "ok"
            rows.append(row)
            boxes = np.array([[x, y, x + 40, y + 90] for x, y in places]).reshape(-1, 4)
            scores = np.full((len(poses), 17), 0.9)
            certain = np.array(box_scores[: len(poses)] or [0.8] * len(poses))
            people.append(People(boxes, certain, poses, scores, np.full(len(poses), 2.0)))
        metadata = {"shard": shard.id, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
        storage.write_bytes(run.part_uri(shard.id), encode_part(rows, people, None, People.empty(17), metadata))
    reduce_run(run)
    return run
