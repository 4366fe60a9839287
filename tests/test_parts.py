"""One shard into one part, without Ray."""

import io
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.images import encode, gradient
from support.paths import DEMO, DEMO_BOXES

from pipeline import storage
from pipeline.annotator import Annotator, NetworksError
from pipeline.decoders.device_jpeg import make_jpeg_decoder
from pipeline.decoders.jpeg import decode_jpeg
from pipeline.images import DecodedImage, DecodeLimits, ImageRefused, JpegDecoder
from pipeline.parts import PartWriter
from pipeline.run import Run
from pipeline.run.precomputed import CocoFiles
from pipeline.settings.tree import Settings
from pipeline.sources import Shard, kinds, plan_collection, shard_keys, write_manifest
from pipeline.sources import shard as shard_module
from pipeline.sources.shard import FramePosition


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for path in (DEMO / "photos").iterdir():
        for copy in range(3):
            (folder / f"{path.stem}_{copy}{path.suffix}").write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no image")
    (folder / "wide.png").write_bytes(encode(gradient(20, 300), "PNG"))
    return folder


def prepare(collection: Path, folder: str, **changes: object) -> tuple[PartWriter, Shard]:
    settings = Settings.model_validate(
        {
            "input": str(collection),
            "output": storage.join(folder, "run"),
            "detector": {"name": "whole_image", "batch": 4},
            "pose": {"batch": 8},
            "images": {"max_megapixels": 0.9},
            **changes,
        }
    )
    run = Run.create(settings)
    write_manifest(run.manifest_uri, plan_collection(settings.input))
    (shard,) = run.manifest().shards()
    precomputed = CocoFiles.load(settings).match(shard_keys(shard))
    return PartWriter(run, Annotator.from_settings(settings), precomputed), shard


def part_of(writer: PartWriter, shard: Shard) -> bytes:
    return storage.read_bytes(writer.run.part_uri(shard.id))


def test_one_row_per_entry_whatever_it_is(collection: Path, folder: str) -> None:
    writer, shard = prepare(collection, folder)
    *_, last = writer.annotate(shard)
    rows = pq.read_table(io.BytesIO(part_of(writer, shard))).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(p.name for p in collection.iterdir())
    assert len(rows) == shard.num_images == last.images == 23
    by_name = {row["image_id"]: row for row in rows}
    assert by_name["notes.txt"]["status"] == "unreadable"
    assert "not an image" in by_name["notes.txt"]["error"]
    assert by_name["cut_short_1.jpg"]["status"] == "unreadable"
    assert by_name["group_0.jpg"]["status"] == "too_large"
    assert (by_name["group_0.jpg"]["width"], by_name["group_0.jpg"]["height"]) == (1552, 600)
    assert by_name["sideways_2.jpg"]["orientation"] == 6
    assert by_name["wide.png"]["sha256"] == storage.sha256((collection / "wide.png").read_bytes())
    assert last.statuses == Counter(row["status"] for row in rows)
    assert last.failed == sum(row["status"] != "ok" for row in rows) == 7
    assert last.video_seconds == 0
    assert {row["thumbnail"] for row in rows} == {None}
    for row in rows:
        assert (row["error"] is None) == (row["status"] == "ok")
        assert row["status"] == "ok" or row["people"] == []
        for person in row["people"]:
            assert len(person["keypoints"]) == 17
            assert person["box"] == [0, 0, row["width"], row["height"]]


def test_the_same_bytes_every_time_and_every_way(collection: Path, tmp_path: Path) -> None:
    """Rows depend on shard, settings and weights alone: overlapped or isolated, again or for the first time."""
    output = {"uri": str(tmp_path / "run"), "candidates": True}
    too_small = {"area_threshold": 200_000}  # more than some of them have
    writer, shard = prepare(collection, str(tmp_path), output=output, suppression=too_small)
    list(writer.annotate(shard))
    first = part_of(writer, shard)
    list(writer.annotate(shard))
    assert part_of(writer, shard) == first
    list(writer.annotate(shard, isolated=True))
    assert part_of(writer, shard) == first
    rows = pq.read_table(io.BytesIO(first)).to_pylist()
    assert sum(len(row["candidates"]) for row in rows) == 16
    assert 0 < sum(len(row["people"]) for row in rows) < 16


def test_an_isolated_run_announces_each_image_before_it_is_decoded(
    collection: Path, tmp_path: Path, monkeypatch
) -> None:
    writer, shard = prepare(collection, str(tmp_path))
    decoded = []

    def decode(data: bytes, limits: DecodeLimits, jpeg_decoder: JpegDecoder):
        decoded.append(data)
        return real(data, limits, jpeg_decoder)

    real = shard_module.decode_image
    monkeypatch.setattr(shard_module, "decode_image", decode)
    announced = []
    for progress in writer.annotate(shard, isolated=True):
        if progress.in_progress is not None:
            assert len(decoded) == progress.in_progress
            announced.append(progress.in_progress)
    assert announced == list(range(23))


@pytest.mark.parametrize("isolated", [False, True])
def test_poison_is_not_decoded_and_keeps_its_row(collection: Path, tmp_path: Path, isolated: bool, monkeypatch) -> None:
    writer, shard = prepare(collection, str(tmp_path))
    list(writer.annotate(shard))
    clean = pq.read_table(io.BytesIO(part_of(writer, shard))).to_pylist()
    real = shard_module.decode_image
    last_number = shard.num_images - 1
    poison_bytes = (collection / shard.keys[last_number]).read_bytes()

    def decode(data: bytes, limits: DecodeLimits, jpeg_decoder: JpegDecoder):
        assert data != poison_bytes
        return real(data, limits, jpeg_decoder)

    monkeypatch.setattr(shard_module, "decode_image", decode)
    list(writer.annotate(shard, poison={last_number}, isolated=isolated))
    rows = pq.read_table(io.BytesIO(part_of(writer, shard))).to_pylist()
    assert rows[-1]["image_id"] == "wide.png"
    assert rows[-1]["status"] == "poison"
    assert rows[-1]["people"] == []
    assert rows[:-1] == clean[:-1]


def test_an_error_of_one_image_goes_into_its_row_in_an_isolated_run(
    collection: Path, tmp_path: Path, monkeypatch
) -> None:
    writer, shard = prepare(collection, str(tmp_path))
    real = writer.annotator.candidates

    def candidates(images):
        images = list(images)
        if images[0][0].shape == (20, 300, 3):
            raise RuntimeError("cannot do 300")
        return real(images)

    monkeypatch.setattr(writer.annotator, "candidates", candidates)
    *_, last = writer.annotate(shard, isolated=True)
    rows = pq.read_table(io.BytesIO(part_of(writer, shard))).to_pylist()
    assert rows[-1]["status"] == "unreadable"
    assert rows[-1]["error"] == "could not be annotated: cannot do 300"
    assert last.images == 23


def test_no_image_is_blamed_for_networks_that_fail_on_all(collection: Path, tmp_path: Path, monkeypatch) -> None:
    writer, shard = prepare(collection, str(tmp_path))

    def broken(crops, boxes):
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED\nwhere it happened")

    monkeypatch.setattr(writer.annotator.poses, "estimate", broken)
    with pytest.raises(NetworksError, match="also fail on a grey image: RuntimeError: CUDNN_STATUS_NOT_INITIALIZED;"):
        list(writer.annotate(shard, isolated=True))
    assert not storage.exists(writer.run.part_uri(shard.id))


def test_images_decoded_side_by_side_keep_their_order(collection: Path, tmp_path: Path, monkeypatch) -> None:
    output = {"uri": str(tmp_path / "run")}
    writer, shard = prepare(collection, str(tmp_path), output=output)
    list(writer.annotate(shard))
    alone = part_of(writer, shard)
    real = shard_module.decode_image
    at_once, most = [0], [0]
    lock = threading.Lock()

    def decode(data: bytes, limits: DecodeLimits, jpeg_decoder: JpegDecoder):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.02 * (len(data) % 3))  # out of order
        try:
            return real(data, limits, jpeg_decoder)
        finally:
            with lock:
                at_once[0] -= 1

    monkeypatch.setattr(shard_module, "decode_image", decode)
    writer.decoders = 3
    list(writer.annotate(shard))
    assert part_of(writer, shard) == alone
    assert most[0] == 3


def test_nothing_is_committed_when_the_networks_fail(collection: Path, tmp_path: Path, monkeypatch) -> None:
    writer, shard = prepare(collection, str(tmp_path))
    monkeypatch.setattr(
        writer.annotator.poses, "estimate", lambda *_: (_ for _ in ()).throw(RuntimeError("device lost"))
    )
    with pytest.raises(RuntimeError, match="device lost"):
        list(writer.annotate(shard))
    assert writer.run.parts() == {}


def test_two_shards_at_once_take_turns_and_equal_one_after_the_other(collection: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    settings = {"input": {"uri": str(collection), "shard_size": 12}}
    settings = Settings.model_validate(
        {**settings, "output": str(tmp_path / "run"), "detector": {"name": "whole_image"}, "pose": {"batch": 8}}
    )
    run = Run.create(settings)
    write_manifest(run.manifest_uri, plan_collection(settings.input))
    writer = PartWriter(run, Annotator.from_settings(settings))
    shards = list(run.manifest().shards())
    expected = []
    for shard in shards:
        list(writer.annotate(shard))
        expected.append(part_of(writer, shard))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda s: list(writer.annotate(s)), shards))
    assert [part_of(writer, s) for s in shards] == expected


def test_given_boxes_reach_the_networks(tmp_path: Path) -> None:
    writer, shard = prepare(
        DEMO / "photos",
        str(tmp_path),
        detector={"name": "given", "boxes": str(DEMO_BOXES)},
        images={"max_megapixels": 100},
    )
    list(writer.annotate(shard))
    rows = {r["image_id"]: r for r in pq.read_table(io.BytesIO(part_of(writer, shard))).to_pylist()}
    assert {name: len(row["people"]) for name, row in rows.items()} == {
        "cat.jpg": 0,
        "cut_short.jpg": 0,
        "eileen_collins.jpg": 1,
        "grace_hopper.jpg": 1,
        "group.jpg": 3,
        "photographer.png": 1,
        "sideways.jpg": 1,
    }
    assert rows["group.jpg"]["coco_id"] == 5
    straight, sideways = (np.array(rows[n]["people"][0]["keypoints"]) for n in ("eileen_collins.jpg", "sideways.jpg"))
    assert np.median(np.abs(straight - sideways)) < 5, "the phone's orientation is undone before the networks"


class Frame:
    """An item that is not an encoded image: it makes its own pixels, as a frame of a video does."""

    status, error, sha256 = "ok", None, None

    def __init__(self, number: int) -> None:
        self.key, self.uri, self._number = f"clip/{number:06d}", f"clip#{number}", number
        self.position = FramePosition("clip", number, 100 * number, number / 10)

    def decode(self, limits: DecodeLimits, jpeg_decoder: JpegDecoder = decode_jpeg) -> DecodedImage:
        if self._number == 3:
            raise ImageRefused("unreadable", "damaged frame", 64, 48)
        assert limits.max_megapixels == 0.9
        return DecodedImage(gradient(seed=self._number), 1)


@pytest.mark.parametrize("isolated", [False, True])
def test_items_that_decode_themselves_have_rows_like_images(
    collection: Path, tmp_path: Path, monkeypatch, isolated: bool
) -> None:
    writer, shard = prepare(collection, str(tmp_path))

    def read(shard: Shard, limits: DecodeLimits):
        return (Frame(number) for number in range(shard.num_images))

    monkeypatch.setitem(kinds.KINDS, "files", kinds.KINDS["files"]._replace(read=read))
    *_, last = writer.annotate(shard, isolated=isolated)
    assert last.video_seconds == pytest.approx(2.2)
    rows = pq.read_table(io.BytesIO(part_of(writer, shard))).to_pylist()
    assert [row["image_id"] for row in rows] == [f"clip/{number:06d}" for number in range(23)]
    assert [None if row["thumbnail"] is None else len(row["thumbnail"]) for row in rows] == [
        None if row["status"] == "unreadable" else 16 * 9 * 3 for row in rows
    ]
    assert [(row["status"], row["error"]) for row in rows if row["status"] != "ok"] == [("unreadable", "damaged frame")]
    assert all((row["width"], row["height"]) == (64, 48) for row in rows)
    assert [(row["video"], row["frame"], row["pts"], row["seconds"]) for row in rows] == [
        ("clip", number, 100 * number, number / 10) for number in range(23)
    ]
    assert rows[3]["people"] == []


def test_images_decoded_on_the_device_have_the_same_people(collection: Path, folder: str) -> None:
    """With the detector and the pose network of the default settings."""
    parts, on_device = [], 0
    for jpeg in ("cpu", "device"):
        changes = {"detector": {}, "pose": {}, "compute": {"device": "cpu", "pixels": "torch", "jpeg": jpeg}}
        writer, shard = prepare(collection, storage.join(folder, jpeg), **changes)
        decode = make_jpeg_decoder(writer.annotator.compute)

        def counted(data: bytes, color: str, decode: JpegDecoder = decode):
            nonlocal on_device
            pixels, warning = decode(data, color)
            on_device += isinstance(pixels, torch.Tensor)
            return pixels, warning

        writer.jpeg_decoder = counted
        list(writer.annotate(shard))
        parts.append(pq.read_table(io.BytesIO(part_of(writer, shard))))
    assert on_device == 3 * 3  # three copies of the plain photographs
    assert parts[0].equals(parts[1])
