"""Plan and read damaged archives, Parquet files and videos, and load damaged annotations, results and checkpoints.

python files.py SEED COUNT FOLDER. Prints counts as JSON; a wrong exception ends it with a traceback.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from backports import zstd
from fuzz.mutate import mutated, mutated_tree
from safetensors.torch import save
from support.coco import SKELETON, made_up
from support.images import encode, gradient
from support.videos import CLIPS, decoded, index_first, moving, write_clip

from pipeline.coco.annotations import load_annotations, read_annotations
from pipeline.coco.boxes import boxes_by_image
from pipeline.coco.results import read_results
from pipeline.detectors.darknet import Darknet
from pipeline.errors import UserError
from pipeline.evaluation import evaluate_keypoints
from pipeline.images import DecodeLimits, ImageRefused
from pipeline.pose import build_pose_model
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.settings.tree import InputSettings
from pipeline.sources import Item, Manifest, plan_collection, read_shard, shard_keys, write_manifest
from pipeline.weights.checkpoints import read_state_dict

LIMITS = DecodeLimits()
# Their packets do not say which frames come between them: in the last group of a cut file a frame may get the time of
# the one before it.
_UNORDERED = (".avi", ".mpg")
_IMAGES = {f"sub/{i}.jpg": encode(gradient(24 + i, 32)) for i in range(4)}


def archives() -> Iterator[tuple[str, bytes]]:
    """Name and content of archives and Parquet files with four images each."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in _IMAGES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "sub/0.jpg"
        archive.addfile(link)
    plain = sink.getvalue()
    yield "a.tar", plain
    yield "a.tar.zst", zstd.compress(plain)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", compression) as zipped:
            for name, data in _IMAGES.items():
                zipped.writestr(name, data)
        yield "a.zip", sink.getvalue()
    struct = pa.array([{"bytes": data, "path": name} for name, data in _IMAGES.items()])
    for column in (struct, pa.array(list(_IMAGES.values()), pa.binary())):
        sink = io.BytesIO()
        pq.write_table(pa.table({"image": column, "label": [1, 2, 3, 4]}), sink, row_group_size=2)
        yield "a.parquet", sink.getvalue()


def read_with_image(folder: Path, name: str, data: bytes) -> list[Item]:
    """Plan and read a folder with one damaged file and one good image; the good image is never lost."""
    collection = folder / "in"
    collection.mkdir(exist_ok=True)
    for old in collection.iterdir():
        old.unlink()
    (collection / name).write_bytes(data)
    (collection / "z.jpg").write_bytes(_IMAGES["sub/0.jpg"])
    manifest = str(folder / "manifest.parquet")
    write_manifest(manifest, plan_collection(InputSettings(uri=str(collection))))
    shards = list(Manifest(manifest).shards())
    items = [item for shard in shards for item in read_shard(shard, LIMITS)]
    keys = [item.key for item in items]
    if not any("row" in (item.error or "") for item in items):  # the path of a damaged row may be lost
        assert keys == [key for shard in shards for key in shard_keys(shard)]
    assert len(set(keys)) == len(keys)
    assert keys[-1] == "z.jpg"
    assert len(keys) > 1, "a damaged file is at least one row"
    return items


def read_archive(folder: Path, name: str, data: bytes) -> str:
    items = read_with_image(folder, name, data)
    return "all read" if all(item.status == "ok" for item in items) else "some unreadable"


def videos(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of videos of 12 frames with four key frames, and an MP4 with its index first."""
    for name, (codec, options) in CLIPS.items():
        parameters = {key: value.replace("=10", "=3") for key, value in options.items()}
        path = write_clip(folder / name, moving(12), codec, parameters | ({"g": "3"} if "g" in options else {}))
        yield name, path.read_bytes()
    index_first(folder / "h264.mp4", folder / "fast.mp4")
    yield "fast.mp4", (folder / "fast.mp4").read_bytes()


def frames_of(path: Path) -> dict[int, np.ndarray]:
    """The frames by their time stamps; those of AVI, which has none, by their numbers."""
    return {
        number if path.suffix == ".avi" or stamp is None else stamp: pixels
        for number, (stamp, pixels) in enumerate(decoded(path))
    }


def read_video(folder: Path, name: str, data: bytes, expected: dict[int, np.ndarray]) -> str:
    """Decode all frames that are planned."""
    outcomes = set()
    for item in read_with_image(folder, name, data)[:-1]:
        try:
            pixels = item.decode(LIMITS).pixels if item.status == "ok" else None
        except ImageRefused:
            pixels = None
        if pixels is None or item.position is None:
            outcomes.add("some unreadable")
            continue
        place = item.position.frame if name.endswith(".avi") else item.position.pts
        if place not in expected or not np.array_equal(pixels, expected[place]):
            outcomes.add("some differ")
    return " and ".join(sorted(outcomes)) or "all read"


def read_coco(truth: object, poses: object, folder: Path) -> str:
    annotations, results = folder / "truth.json", folder / "results.json"
    annotations.write_text(truth if isinstance(truth, str) else json.dumps(truth))
    results.write_text(poses if isinstance(poses, str) else json.dumps(poses))
    refused = 0
    readers: list[Callable[[], object]] = [
        lambda: load_annotations(str(annotations)),
        lambda: boxes_by_image("x", load_annotations(str(annotations))),
        lambda: read_results(str(results), read_annotations(str(annotations), SKELETON), SKELETON),
        lambda: evaluate_keypoints(str(results), str(annotations), SKELETON),
    ]
    for reader in readers:
        try:
            reader()
        except UserError as error:
            refused += one_line(error)
    return "refused" if refused else "read"


_CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\n"
    "activation=leaky\n[maxpool]\nsize=2\nstride=2\n[route]\nlayers=-1,-2\n[shortcut]\nfrom=-2\n"
    "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n[yolo]\nanchors=1,2\nclasses=1\n"
).replace("layers=-1,-2", "layers=-1")


def checkpoints() -> Iterator[tuple[str, bytes]]:
    state = {
        k: v.half() if v.is_floating_point() else v
        for k, v in build_pose_model("fastpose_mobile_small").state_dict().items()
    }
    small = dict(list(state.items())[:40])
    sink = io.BytesIO()
    torch.save({"state_dict": small, "epoch": 1}, sink)
    yield "w.pth", sink.getvalue()
    yield "w.safetensors", save(small)
    yield "x.cfg", _CFG.encode()


def read_checkpoint(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    try:
        if name.endswith(".cfg"):
            Darknet(data.decode(errors="replace"))
        else:
            load_pose_network(read_state_dict(path), str(path))
    except UserError as error:
        one_line(error)
        return "refused"
    return "read"


def one_line(error: UserError) -> bool:
    assert len(str(error).splitlines()) == 1, error
    return True


def damaged_json(content: object, r: np.random.Generator) -> object:
    if r.random() < 0.3:
        return mutated(json.dumps(content).encode(), r).decode(errors="replace")
    return mutated_tree(content, r)


def jobs(folder: Path) -> dict[str, Callable[[int, np.random.Generator], str]]:
    """What is done with each kind of file: number and random generator to the outcome."""
    packed, states = list(archives()), list(checkpoints())
    (originals := folder / "originals").mkdir()
    filmed = [(name, data, frames_of(originals / name)) for name, data in videos(originals)]
    truth, poses, _ = made_up(0)
    truth = {key: value[:6] for key, value in truth.items()}
    known = {image["id"] for image in truth["images"]}
    poses = [pose for pose in poses if pose["image_id"] in known][:6]

    def archive(number: int, r: np.random.Generator) -> str:
        name, data = packed[number % len(packed)]
        return read_archive(folder, name, mutated(data, r))

    def video(number: int, r: np.random.Generator) -> str:
        name, data, frames = filmed[number % len(filmed)]
        return read_video(folder, name, mutated(data, r), frames)

    def cut_video(number: int, r: np.random.Generator) -> str:
        name, data, frames = filmed[number % len(filmed)]
        outcome = read_video(folder, name, data[: int(r.integers(len(data)))], frames)
        if not name.endswith(_UNORDERED):
            assert "differ" not in outcome, f"{name}: {outcome}"  # a frame is right, or it is refused
        return outcome

    def annotations(number: int, r: np.random.Generator) -> str:
        return read_coco(damaged_json(truth, r), damaged_json(poses, r) if number % 2 else poses, folder)

    def checkpoint(number: int, r: np.random.Generator) -> str:
        name, data = states[number % len(states)]
        return read_checkpoint(folder, name, mutated(data, r))

    return {
        "archives": archive,
        "videos": video,
        "cut videos": cut_video,
        "annotations": annotations,
        "checkpoints": checkpoint,
    }


def main(seed: int, count: int, folder: Path) -> None:
    work = jobs(folder)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in work}
    slowest = dict.fromkeys(work, 0.0)
    for number in range(count):
        for kind, run in work.items():
            started = time.monotonic()
            try:
                counts[kind][run(number, np.random.default_rng([seed, number]))] += 1
            except Exception as error:
                error.add_note(f"seed {seed}, number {number}, {kind}")
                raise
            slowest[kind] = max(slowest[kind], time.monotonic() - started)
    print(json.dumps({"counts": counts, "slowest_seconds": {k: round(v, 3) for k, v in slowest.items()}}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
