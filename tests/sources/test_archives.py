"""Tar and zip archives of all kinds that people have, on local files and on S3."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
from backports import zstd
from support.images import encode, gradient
from support.paths import SHARED
from support.sources import image, plan, read, tar_bytes

from pipeline import storage
from pipeline.images import DecodeLimits, decode_image
from pipeline.sources import read_shard
from pipeline.sources.lists import read_list

_CHECKED = {zstd.CompressionParameter.checksum_flag: 1}  # as the command zstd does
_COMPRESS = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tbz2": bz2.compress,
    "tar.xz": lzma.compress,
    "txz": lzma.compress,
    "tar.zst": lambda data: zstd.compress(data, options=_CHECKED),
    "tzst": zstd.compress,
}


def tar_of_links(links: dict[str, str], members: dict[str, bytes], kind: bytes = tarfile.SYMTYPE) -> bytes:
    """Links first, members after them."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


@pytest.mark.parametrize("suffix", _COMPRESS)
def test_every_compression_of_tar_is_read(folder: str, suffix: str) -> None:
    members = {f"{i}.jpg": image(i) for i in range(5)}
    uri = storage.join(folder, f"a.{suffix}")
    storage.write_bytes(uri, _COMPRESS[suffix](tar_bytes(members)))
    assert [item.data for item in read(plan(folder, uri))] == list(members.values())


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_damage_in_any_compression_ends_with_an_unreadable_item(tmp_path, suffix: str) -> None:
    whole = _COMPRESS[suffix](tar_bytes({f"{i}.jpg": image(i) for i in range(6)}))
    (tmp_path / "in").mkdir()
    for number in range(12):
        data = bytearray(whole)
        data[number * len(whole) // 12] ^= 0xFF
        (tmp_path / "in" / f"flipped{number:02d}.{suffix}").write_bytes(bytes(data))
        (tmp_path / "in" / f"short{number:02d}.{suffix}").write_bytes(whole[: number * len(whole) // 12])
    for shard in plan(str(tmp_path), str(tmp_path / "in")):
        items = read([shard])
        assert items[-1].status == "unreadable" or [item.data for item in items] == [image(i) for i in range(6)]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
@pytest.mark.parametrize("compressed_together", [True, False])
def test_concatenated_archives_are_read_to_the_end(folder: str, suffix: str, compressed_together: bool) -> None:
    archives = [tar_bytes({"a.jpg": image(0)}), tar_bytes({"b.jpg": image(1), "a.jpg": image(2)})]
    compress = _COMPRESS[suffix]
    data = compress(b"".join(archives)) if compressed_together else b"".join(map(compress, archives))
    uri = storage.join(folder, f"c.{suffix}")
    storage.write_bytes(uri, data)
    items = read(plan(folder, uri))
    assert [(item.key.split("/")[1], item.data) for item in items] == [
        ("a.jpg", image(0)),
        ("b.jpg", image(1)),
        ("a.jpg#2", image(2)),
    ]


def test_data_after_the_end_of_an_archive_is_reported(tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes({"a.jpg": image(0)}) + b"something else" * 100)
    good, end = read(plan(str(tmp_path), str(tmp_path / "a.tar")))
    assert (good.status, end.status) == ("ok", "unreadable")
    assert "other data after it" in (end.error or "")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(("kind", "base"), [(tarfile.SYMTYPE, ""), (tarfile.LNKTYPE, "sub/")])
def test_links_to_members_before_or_after_them_are_images(folder: str, suffix: str, kind: bytes, base: str) -> None:
    links = {"sub/a.jpg": f"{base}b.jpg", "sub/b.jpg": f"{base}c.jpg", "sub/gone.jpg": "nowhere.jpg"}
    data = tar_of_links({**links, "loop1.jpg": "loop2.jpg", "loop2.jpg": "loop1.jpg"}, {"sub/c.jpg": image(3)}, kind)
    uri = storage.join(folder, f"a.{suffix}")
    storage.write_bytes(uri, _COMPRESS[suffix](data))
    items = {item.key.split("/", 1)[1]: item for item in read(plan(folder, uri))}
    assert [items[f"sub/{name}.jpg"].data for name in "abc"] == [image(3)] * 3
    missing = {name for name, item in items.items() if item.status == "missing"}
    assert missing == {"sub/gone.jpg", "loop1.jpg", "loop2.jpg"}


def test_links_in_a_zip_are_followed(tmp_path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, target in (("sub/a.jpg", "../b.jpg"), ("c.jpg", "gone.jpg")):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
        archive.writestr("b.jpg", image(1))
    (tmp_path / "a.zip").write_bytes(sink.getvalue())
    items = read(plan(str(tmp_path), str(tmp_path / "a.zip")))
    assert [(item.key, item.status) for item in items] == [
        ("a.zip/sub/a.jpg", "ok"),
        ("a.zip/c.jpg", "missing"),
        ("a.zip/b.jpg", "ok"),
    ]
    assert items[0].data == image(1)


@pytest.mark.parametrize("pack", [tar_bytes, zip_bytes])
def test_members_are_images_by_suffix_or_content(folder: str, pack) -> None:
    members = {
        "000": image(0),
        "001.bin": image(1),
        "002.data": encode(gradient(), "PNG"),
        "damaged": b"no image",
        "notes.json": b"{}",
        "labels.cls": b"3",
        "._a.jpg": b"AppleDouble",
        "__MACOSX/a.jpg": b"AppleDouble",
        ".git/a.jpg": image(3),
        "./a.jpg": image(4),
    }
    uri = storage.join(folder, "a.tar" if pack is tar_bytes else "a.zip")
    storage.write_bytes(uri, pack(members))
    names = [item.uri.split("#")[1] for item in read(plan(folder, uri))]
    assert names == ["000", "001.bin", "002.data", "damaged", "./a.jpg"]


@pytest.mark.parametrize("pack", [tar_bytes, zip_bytes])
def test_an_archive_without_images_is_an_unreadable_item(tmp_path, pack) -> None:
    suffix = "tar" if pack is tar_bytes else "zip"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"empty.{suffix}").write_bytes(pack({}))
    (tmp_path / "in" / f"other.{suffix}").write_bytes(pack({"a.json": b"{}", "b.csv": b"1"}))
    empty, other = read(plan(str(tmp_path), str(tmp_path / "in")))
    assert (empty.status, other.status) == ("unreadable", "unreadable")
    assert empty.error == "the archive is empty"
    assert "none of the members is an image: a.json, b.csv" in (other.error or "")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_archives_are_read_in_every_compression(folder: str, compression: int) -> None:
    members = {f"sub/{i}.jpg": image(i) for i in range(5)}
    storage.write_bytes(storage.join(folder, "in", "a.zip"), zip_bytes(members, compression))
    (shard,) = plan(folder, storage.join(folder, "in"))
    assert (shard.kind, shard.num_images) == ("zip", 5)
    items = read([shard])
    assert [(item.key, item.data) for item in items] == [(f"a.zip/{name}", data) for name, data in members.items()]
    assert items[0].uri == storage.join(folder, "in", "a.zip") + "#sub/0.jpg"


def test_damaged_and_encrypted_entries_of_a_zip_are_unreadable(tmp_path) -> None:
    data = bytearray(zip_bytes({"a.jpg": image(0), "b.jpg": image(1), "c.jpg": image(2)}, zipfile.ZIP_STORED))
    data[data.index(image(0)) + 50] ^= 0xFF
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))  # of b.jpg in the directory
    data[entry + 8] |= 1
    (tmp_path / "a.zip").write_bytes(bytes(data))
    (tmp_path / "cut.zip").write_bytes(bytes(data[: len(data) // 2]))
    items = read(plan(str(tmp_path), str(tmp_path / "a.zip")))
    assert [item.status for item in items] == ["unreadable", "unreadable", "ok"]
    assert "encrypted" in (items[1].error or "")
    (cut,) = read(plan(str(tmp_path), str(tmp_path / "cut.zip")))
    assert cut.status == "unreadable"
    assert "not a zip archive" in (cut.error or "")


def test_links_through_linked_folders_are_followed_and_limits_hold_for_targets(tmp_path) -> None:
    links = {"dlink": "run1", "b.jpg": "dlink/a.jpg"}
    (tmp_path / "t.tar").write_bytes(tar_of_links(links, {"run1/a.jpg": image(0) + bytes(5000)}))
    items = read(plan(str(tmp_path), str(tmp_path / "t.tar")))
    assert [(item.uri.split("#")[1], item.status) for item in items] == [
        ("dlink", "missing"),
        ("b.jpg", "ok"),
        ("run1/a.jpg", "ok"),
    ]
    assert "no file in the archive" in (items[0].error or "")
    small = read(plan(str(tmp_path), str(tmp_path / "t.tar")), max_bytes=4000)
    assert [item.status for item in small[1:]] == ["too_large", "too_large"]


def test_a_header_with_impossible_numbers_ends_the_archive_only(tmp_path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("a.jpg", {}), ("b.jpg", {"GNU.sparse.map": "1,x"})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(image(0)), headers
            archive.addfile(info, io.BytesIO(image(0)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(sink.getvalue())
    (tmp_path / "in" / "z.jpg").write_bytes(image(1))
    items = read(plan(str(tmp_path), str(tmp_path / "in")))
    assert [item.status for item in items] == ["ok", "unreadable", "ok"]


def test_numbered_names_stay_unique(tmp_path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name in ("a.jpg", "a.jpg", "a.jpg#2", "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(image(0))
            archive.addfile(info, io.BytesIO(image(0)))
    (tmp_path / "a.tar").write_bytes(sink.getvalue())
    keys = [item.key for item in read(plan(str(tmp_path), str(tmp_path / "a.tar")))]
    assert keys == ["a.tar/a.jpg", "a.tar/a.jpg#2", "a.tar/a.jpg#2#2", "a.tar/a.jpg#3"]


def test_members_of_a_compressed_archive_are_read_in_one_pass(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their first bytes are looked at first; going back would decompress the archive again for each."""
    noise = np.random.default_rng(0)
    members = {f"{i:03d}.raw": image(i) + noise.bytes(20_000) for i in range(30)}
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(members)))
    shards = plan(str(tmp_path), str(tmp_path / "a.tar.gz"))
    rewinds = []
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda reader: rewinds.append(reader))  # type: ignore[attr-defined]
    items = [item for shard in shards for item in read_shard(shard, DecodeLimits(max_megabytes=1))]
    assert [item.data for item in items] == list(members.values())  # type: ignore[attr-defined]
    assert rewinds == []


_CASES = SHARED / "cases"


@pytest.mark.skipif(not _CASES.is_dir(), reason="needs the files of ../shared/cases")
def test_archives_and_tables_of_public_reports(tmp_path) -> None:
    def statuses(name: str) -> list[tuple[str, str]]:
        items = read(plan(str(tmp_path), str(_CASES / name)))
        return [(item.key.split("/", 1)[1], item.status) for item in items]

    assert statuses("tar/concat.tar") == [("a.jpg", "ok"), ("b.jpg", "ok")]
    assert statuses("tar/symlink.tar") == [("a.jpg", "ok"), ("b.jpg", "ok"), ("c.jpg", "missing")]
    assert [status for _, status in statuses("tar/noext.tar")] == ["ok"] * 3
    images = read(plan(str(tmp_path), str(_CASES / "tables" / "sha_first.parquet")))
    assert all(decode_image(item.data or b"").pixels.size for item in images)
    assert list(read_list(str(_CASES / "tables" / "noheader1.csv"), None)) == ["plain.jpg", "UP.JPG", "a.b.c.jpg"]
    assert list(read_list(str(_CASES / "tables" / "spaced_header.csv"), None)) == ["plain.jpg", "UP.JPG"]
    assert next(iter(read_list(str(_CASES / "tables" / "utf16.txt"), None))) == "a.jpg"
