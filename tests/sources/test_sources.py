"""Collections of each kind are planned as shards, and shards are read as items; on local files and on S3."""

import functools
import gzip
import io
import json
import os
import tarfile
import threading
import time
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import image, plan, read, tar_bytes

from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings.tree import InputSettings
from pipeline.sources import EncodedImage, Manifest, collection_keys, plan_collection, read_items, read_shard


def test_a_folder_is_read_in_path_order_without_hidden_files(folder: str) -> None:
    names = [f"{i % 3}/{i:03d}.jpg" for i in range(25)] + ["notes.txt", "z.png"]
    for i, name in enumerate(names):
        storage.write_bytes(storage.join(folder, "in", name), image(i))
    storage.write_bytes(storage.join(folder, "in", ".hidden", "x.jpg"), b"x")
    shards = plan(folder, storage.join(folder, "in"), shard_size=10)
    assert [s.num_images for s in shards] == [10, 10, 7]
    items = read(shards)
    assert [item.key for item in items] == sorted(names)
    assert {item.key: item.data for item in items} == {name: image(i) for i, name in enumerate(names)}
    assert items[0].uri == storage.join(folder, "in", "0/000.jpg")
    again = plan(folder, storage.join(folder, "in"), shard_size=10)
    assert [s.id for s in again] == [s.id for s in shards]


def test_a_glob_and_a_single_file_are_collections(folder: str) -> None:
    for i in range(4):
        storage.write_bytes(storage.join(folder, "in", f"{i}.{'jpg' if i % 2 else 'txt'}"), image(i))
    assert [item.key for item in read(plan(folder, storage.join(folder, "in", "*.jpg")))] == ["1.jpg", "3.jpg"]
    assert [item.key for item in read(plan(folder, storage.join(folder, "in", "3.jpg")))] == ["3.jpg"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_each_webdataset_archive_is_a_shard(folder: str, suffix: str) -> None:
    members: dict[str, bytes] = {}
    for i in range(12):
        members[f"sub/{i:04d}.jpg"] = image(i)
        members[f"sub/{i:04d}.json"] = b"{}"
    members["sub/0000.left.png"] = image(99)
    form = "w" if suffix == ".tar" else "w:gz"
    for shard in ("a", "b"):
        storage.write_bytes(storage.join(folder, "in", shard + suffix), tar_bytes(members, form))
    shards = plan(folder, storage.join(folder, "in"))
    assert [(s.kind, s.num_images) for s in shards] == [("tar", 13)] * 2
    items = read(shards)
    assert [item.key for item in items[:2]] == [f"a{suffix}/sub/0000.jpg", f"a{suffix}/sub/0001.jpg"]
    assert [item.data for item in items[:12]] == [image(i) for i in range(12)]
    assert len({item.key for item in items}) == 26
    assert plan(folder, storage.join(folder, "in", "a" + suffix))[0].num_images == 13


def test_duplicate_names_in_an_archive_get_unique_keys(folder: str) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for i in range(2):
            info = tarfile.TarInfo("same.jpg")
            info.size = len(image(i))
            archive.addfile(info, io.BytesIO(image(i)))
    storage.write_bytes(storage.join(folder, "a.tar"), sink.getvalue())
    items = read(plan(folder, storage.join(folder, "a.tar")))
    assert [(item.key, item.data) for item in items] == [("a.tar/same.jpg", image(0)), ("a.tar/same.jpg#2", image(1))]


def test_a_truncated_archive_loses_only_the_missing_part(folder: str) -> None:
    members = {f"{i}.jpg": image(i) * 4 for i in range(6)}
    whole = tar_bytes(members)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        third = archive.getmembers()[3].offset_data
    for name, data in (
        ("inside.tar", whole[: third + 100]),
        ("between.tar", whole[: third - 512]),
        ("header.tar", whole[: third - 300]),
        ("packed.tar.gz", gzip.compress(whole)[:-40]),
        ("garbage.tar", b"no archive at all" * 100),
    ):
        storage.write_bytes(storage.join(folder, "in", name), data)
    items = read(plan(folder, storage.join(folder, "in")))
    by_archive: dict[str, list[EncodedImage]] = {}
    for item in items:
        by_archive.setdefault(item.uri.split("#")[0].rsplit("/", 1)[1], []).append(item)
    for name in ("inside.tar", "between.tar", "header.tar"):
        *good, end = by_archive[name]
        assert [item.data for item in good[:3]] == [image(i) * 4 for i in range(3)]
        assert all(item.status == "unreadable" for item in good[3:])
        assert end.status == "unreadable"
        assert end.error
        assert "archive" in end.error
    assert by_archive["inside.tar"][3].error == "the archive ends inside this entry"
    assert by_archive["packed.tar.gz"][-1].status == "unreadable"
    assert by_archive["packed.tar.gz"][0].data == image(0) * 4
    assert [item.status for item in by_archive["garbage.tar"]] == ["unreadable"]


def test_member_names_outside_the_archive_are_harmless(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "a.tar"), tar_bytes({"../../etc/x.jpg": image(0), "/abs/y.jpg": image(1)}))
    items = read(plan(folder, storage.join(folder, "a.tar")))
    assert [item.data for item in items] == [image(0), image(1)]


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_each_row_group_of_a_parquet_with_images_is_a_shard(folder: str, kind: str) -> None:
    cells = [image(i) if i != 3 else None for i in range(10)]
    column = (
        pa.array(cells, pa.binary())
        if kind == "binary"
        else pa.array(
            [{"bytes": c, "path": f"p{i}.jpg"} for i, c in enumerate(cells)],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
    )
    sink = io.BytesIO()
    pq.write_table(pa.table({"label": pa.array(range(10)), "image": column}), sink, row_group_size=4)
    storage.write_bytes(storage.join(folder, "in", "d.parquet"), sink.getvalue())
    shards = plan(folder, storage.join(folder, "in"))
    assert [(s.kind, s.num_images, s.row_group) for s in shards] == [
        ("parquet", 4, 0),
        ("parquet", 4, 1),
        ("parquet", 2, 2),
    ]
    items = read(shards)
    assert [item.data for item in items] == cells
    assert items[3].status == "missing"
    assert items[5].key == ("d.parquet/5" if kind == "binary" else "d.parquet/5/p5.jpg")


@pytest.mark.parametrize("form", ["txt", "csv", "parquet"])
def test_a_list_names_images_and_drops_duplicates(folder: str, form: str) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    for i, name in enumerate(names):
        storage.write_bytes(storage.join(folder, "photos", name), image(i))
    listed = [*names, "gone.jpg", "0.jpg", storage.join(folder, "photos", "1.jpg")]
    uri = storage.join(folder, f"list.{form}")
    if form == "txt":
        storage.write_bytes(uri, "\r\n".join([*listed, "", ""]).encode())
    elif form == "csv":
        storage.write_bytes(uri, b"label,file_name\n" + "".join(f"7,{n}\n" for n in listed).encode())
    else:
        sink = io.BytesIO()
        pq.write_table(pa.table({"label": ["x"] * len(listed), "url": listed}), sink)
        storage.write_bytes(uri, sink.getvalue())
    items = read(plan(folder, uri, image_root=storage.join(folder, "photos"), shard_size=4))
    assert [item.key for item in items] == [*names, "gone.jpg", storage.join(folder, "photos", "1.jpg")]
    assert [item.status for item in items] == ["ok"] * 5 + ["missing", "ok"]
    assert items[6].data == image(1)


@pytest.mark.parametrize(
    ("header", "column", "message"),
    [
        ("a,b", None, r"list\.csv: cannot tell which column .* set --input\.image_column to one of a, b"),
        ("a,b", "c", r"list\.csv: --input\.image_column c is not a text column .* to one of a, b"),
    ],
)
def test_the_error_names_the_columns_of_a_list(tmp_path, header: str, column: str | None, message: str) -> None:
    (tmp_path / "list.csv").write_text(f"{header}\n1,2\n")
    with pytest.raises(UserError, match=message):
        plan(str(tmp_path), str(tmp_path / "list.csv"), image_column=column)


def test_a_coco_file_names_images_below_the_image_root(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "photos", "a.jpg"), image(0))
    content = {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}], "annotations": []}
    storage.write_bytes(storage.join(folder, "coco.json"), json.dumps(content).encode())
    uri = storage.join(folder, "coco.json")
    items = read(plan(folder, uri, image_root=storage.join(folder, "photos")))
    assert [(item.key, item.status) for item in items] == [("a.jpg", "ok"), ("b.jpg", "missing")]
    with pytest.raises(ValueError, match=r"none of the listed images exists .* set --input\.image_root"):
        plan(folder, uri)


def test_large_files_are_not_read(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "in", "large.jpg"), b"x" * 5000)
    storage.write_bytes(storage.join(folder, "in", "small.jpg"), b"x" * 500)
    storage.write_bytes(storage.join(folder, "in", "t.tar"), tar_bytes({"large.jpg": b"x" * 5000}))
    storage.write_bytes(storage.join(folder, "list.txt"), b"in/large.jpg\nin/small.jpg\n")
    statuses = {item.key: item.status for item in read(plan(folder, storage.join(folder, "in")), max_bytes=1000)}
    assert statuses == {"large.jpg": "too_large", "small.jpg": "ok", "t.tar/large.jpg": "too_large"}
    listed = {item.key: item.status for item in read(plan(folder, storage.join(folder, "list.txt")), max_bytes=1000)}
    assert listed == {"in/large.jpg": "too_large", "in/small.jpg": "ok"}


def test_an_empty_or_missing_collection_is_an_error(folder: str) -> None:
    with pytest.raises((ValueError, storage.MissingObject), match="nothing_here"):
        plan(folder, storage.join(folder, "nothing_here"))
    assert not storage.exists(storage.join(folder, "run", "manifest.parquet"))


def test_a_damaged_parquet_among_images_is_one_item(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "in", "a.jpg"), image(0))
    storage.write_bytes(storage.join(folder, "in", "bad.parquet"), b"PAR1 nothing")
    items = read(plan(folder, storage.join(folder, "in")))
    assert [item.key for item in items] == ["a.jpg", "bad.parquet"]


def test_the_error_names_an_archive_that_changed_since_planning(folder: str) -> None:
    uri = storage.join(folder, "a.tar")
    storage.write_bytes(uri, tar_bytes({"0.jpg": image(0), "1.jpg": image(1)}))
    shards = plan(folder, uri)
    storage.write_bytes(uri, tar_bytes({"0.jpg": image(0)}))
    with pytest.raises(storage.ChangedObject, match=r"a\.tar has changed"):
        read(shards)


def test_the_keys_of_a_collection_leave_out_archives_that_changed(folder: str) -> None:
    for name in ("a.tar", "b.tar"):
        storage.write_bytes(storage.join(folder, "in", name), tar_bytes({"0.jpg": image(0), "1.jpg": image(1)}))
    storage.write_bytes(storage.join(folder, "in", "c.jpg"), image(2))
    plan(folder, storage.join(folder, "in"))
    manifest = Manifest(storage.join(folder, "run", "manifest.parquet"))
    assert not manifest.only_frames
    everything = ["a.tar/0.jpg", "a.tar/1.jpg", "b.tar/0.jpg", "b.tar/1.jpg", "c.jpg"]
    assert list(collection_keys(manifest)) == everything
    storage.write_bytes(storage.join(folder, "in", "b.tar"), tar_bytes({"0.jpg": image(0)}))
    assert list(collection_keys(manifest)) == ["a.tar/0.jpg", "a.tar/1.jpg", "c.jpg"]


def test_a_loose_file_that_changed_since_planning_is_missing(folder: str) -> None:
    for name in ("0.jpg", "1.jpg"):
        storage.write_bytes(storage.join(folder, "in", name), image(0))
    shards = plan(folder, storage.join(folder, "in"))
    time.sleep(0.01)
    storage.write_bytes(storage.join(folder, "in", "0.jpg"), image(10))
    storage.write_bytes(storage.join(folder, "in", "1.jpg"), image(0))  # same size, later modification time
    changed, same = read(shards)
    assert (changed.status, same.status) == ("missing", "ok")
    assert "0.jpg has changed" in (changed.error or "")


def test_a_list_of_web_addresses(tmp_path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.jpg").write_bytes(image(0))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "list.txt").write_text(f"{base}/a.jpg\n{base}/gone.jpg\nhttp://127.0.0.1:9/refused.jpg\n")
    items = read(plan(str(tmp_path), str(tmp_path / "list.txt")))
    server.shutdown()
    assert [item.status for item in items] == ["ok", "missing", "missing"]
    assert items[0].data == image(0)


def test_an_empty_object_is_an_item(folder: str) -> None:
    for name, data in (("a.jpg", b""), ("b.jpg", image(1))):
        storage.write_bytes(storage.join(folder, "in", name), data)
    storage.write_bytes(storage.join(folder, "list.txt"), b"in/a.jpg\nin/b.jpg\n")
    for uri in (storage.join(folder, "in"), storage.join(folder, "list.txt")):
        assert [(item.status, item.data) for item in read(plan(folder, uri))] == [("ok", b""), ("ok", image(1))]


def test_impossible_names_in_a_list_are_items_with_an_error(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(image(0))
    lines = ["a.jpg", "a.jpg/x.jpg", "x" * 300 + ".jpg", "foo://x/y.jpg", "nul\0.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    items = read(plan(str(tmp_path), str(tmp_path / "list.txt")))
    assert [item.status for item in items] == ["ok", "missing", "missing", "unreadable", "unreadable"]


def test_names_that_are_not_utf8_are_read(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/caf\xe9.jpg", "wb") as file:
        file.write(image(7))
    data = tar_bytes({"caf_.jpg": image(8)}).replace(b"caf_.jpg", b"caf\xe9.jpg")
    header = bytearray(data[:512])
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "in" / "z.tar").write_bytes(bytes(header) + data[512:])
    items = read(plan(str(tmp_path), str(tmp_path / "in")))
    assert [item.data for item in items] == [image(7), image(8)]
    assert all(item.key.encode() and item.uri.encode() for item in items), "a table can store them"


def test_linked_files_are_read_and_broken_links_are_missing(tmp_path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(image(0))
    (tmp_path / "in" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in" / "sub" / "up").symlink_to("..")
    statuses = {item.key: item.status for item in read(plan(str(tmp_path), str(tmp_path / "in")))}
    assert statuses.pop("gone.jpg") == "missing"
    assert statuses.pop("a.jpg") == statuses.pop("b.jpg") == "ok"
    assert set(statuses.values()) <= {"unreadable", "missing"}


def test_hard_links_and_unsupported_formats_in_a_tar_are_items(folder: str) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, link in (("a.jpg", None), ("b.jpg", "a.jpg"), ("c.jpg", "none.jpg"), ("d.HEIC", None)):
            info = tarfile.TarInfo(name)
            if link is None:
                info.size = len(image(0))
            else:
                info.type, info.linkname = tarfile.LNKTYPE, link
            archive.addfile(info, io.BytesIO(image(0)))
    storage.write_bytes(storage.join(folder, "A.TAR"), sink.getvalue())
    items = read(plan(folder, storage.join(folder, "A.TAR")))
    assert [(item.key, item.status) for item in items] == [
        ("A.TAR/a.jpg", "ok"),
        ("A.TAR/b.jpg", "ok"),
        ("A.TAR/c.jpg", "missing"),
        ("A.TAR/d.HEIC", "ok"),
    ]
    assert items[1].data == image(0)


def test_damage_anywhere_in_a_compressed_archive_ends_with_an_unreadable_item(tmp_path) -> None:
    whole = tar_bytes({f"{i}.jpg": image(i) for i in range(6)}, "w:gz")
    (tmp_path / "in").mkdir()
    for i in range(24):
        data = bytearray(whole)
        position = 12 + i * (len(whole) - 20) // 24
        data[position] ^= 0xFF
        (tmp_path / "in" / f"{i:02d}.tar.gz").write_bytes(bytes(data))
    shards = plan(str(tmp_path), str(tmp_path / "in"))
    assert len(shards) == 24
    assert all(read([shard])[-1].status == "unreadable" or len(read([shard])) == 6 for shard in shards)


def test_a_parquet_with_a_damaged_footer_is_one_item(tmp_path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([image(0)], pa.binary())}), sink)
    data = bytearray(sink.getvalue())
    data[-60:-12] = b"\xff" * 48
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.parquet").write_bytes(bytes(data))
    (tmp_path / "in" / "a.jpg").write_bytes(image(0))
    assert [item.key for item in read(plan(str(tmp_path), str(tmp_path / "in")))] == ["a.jpg", "bad.parquet"]


def test_the_output_of_the_run_is_excluded_from_its_input(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(image(0))
    (tmp_path / "out" / "pictures").mkdir(parents=True)
    (tmp_path / "out" / "pictures" / "b.jpg").write_bytes(image(1))
    settings = InputSettings(uri=str(tmp_path))
    planned = list(plan_collection(settings, without=str(tmp_path / "out")))
    assert [key for shard in planned for key in shard.keys] == ["a.jpg"]


@pytest.mark.parametrize("kind", ["files", "tar", "tar.gz", "zip", "parquet"])
def test_some_items_of_a_shard_are_read_alone(folder: str, kind: str) -> None:
    contents = {f"{i}.jpg": image(i) for i in range(6)}
    if kind == "files":
        for name, data in contents.items():
            storage.write_bytes(storage.join(folder, "in", name), data)
    elif kind == "zip":
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        storage.write_bytes(storage.join(folder, "in", "a.zip"), sink.getvalue())
    elif kind == "parquet":
        sink = io.BytesIO()
        rows = [{"bytes": data, "path": name} for name, data in contents.items()]
        pq.write_table(pa.table({"image": rows}), sink)
        storage.write_bytes(storage.join(folder, "in", "a.parquet"), sink.getvalue())
    else:
        data = tar_bytes(contents, "w" if kind == "tar" else "w:gz")
        storage.write_bytes(storage.join(folder, "in", f"a.{kind}"), data)
    (shard,) = plan(folder, storage.join(folder, "in"))
    everything = list(read_shard(shard))
    wanted = {everything[4].key, everything[1].key, "unknown.jpg"}
    assert list(read_items(shard, wanted)) == [everything[1], everything[4]]
