import os
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from support.faults import FAULTS
from support.s3 import S3Server
from support.web import Ranges

from pipeline import storage
from pipeline.storage import filesystems


def test_written_bytes_are_read_back(folder: str) -> None:
    uri = storage.join(folder, "a", "b.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"hello")
    assert storage.read_bytes(uri) == b"hello"
    assert storage.read_bytes(uri, limit=2) == b"he"
    assert storage.is_file(uri)
    assert not storage.is_file(storage.join(folder, "a"))
    assert storage.stat(uri).size == 5


def test_listing_is_in_path_order_and_recursive(folder: str) -> None:
    names = ["b/2.txt", "a-b/1.txt", "a/c/3.txt", "a.txt", "a/b.txt", "é.txt"]
    for name in names:
        storage.write_bytes(storage.join(folder, name), name.encode())
    listed = [entry.uri.removeprefix(folder + "/") for entry in storage.list_files(folder)]
    assert listed == sorted(names)
    again = {entry.uri: (entry.size, entry.etag) for entry in storage.list_files(folder)}
    assert all(size > 0 and etag for size, etag in again.values())


def test_a_listing_contains_objects_that_were_just_written(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "1"), b"1")
    assert len(list(storage.list_files(folder))) == 1
    storage.write_bytes(storage.join(folder, "2"), b"2")
    assert len(list(storage.list_files(folder))) == 2


def test_a_failed_write_creates_no_object(folder: str) -> None:
    uri = storage.join(folder, "table.bin")
    with pytest.raises(RuntimeError, match="cut"), storage.open_write(uri) as stream:
        stream.write(b"x" * 12_000_000)
        raise RuntimeError("cut")
    assert not storage.exists(uri)
    with storage.open_write(uri) as stream:
        for _ in range(3):
            stream.write(b"y" * 6_000_000)
    assert storage.read_bytes(uri) == b"y" * 18_000_000
    assert [storage.basename(e.uri) for e in storage.list_files(folder)] == ["table.bin"]


def test_errors_name_the_missing_object(folder: str) -> None:
    uri = storage.join(folder, "nothing.jpg")
    with pytest.raises(storage.MissingObject, match=r"nothing\.jpg"):
        storage.read_bytes(uri)
    with pytest.raises(storage.MissingObject, match=r"nothing\.jpg"), storage.open_read(uri):
        pass
    storage.delete(uri)


def test_read_many_keeps_the_order_and_yields_exceptions_in_place(folder: str) -> None:
    uris = [storage.join(folder, f"{i}") for i in range(100)]
    for i, uri in enumerate(uris):
        if i % 10:
            storage.write_bytes(uri, str(i).encode())
    for i, data in enumerate(storage.read_many([storage.Entry(uri, -1, "") for uri in uris], 10)):
        if i % 10:
            assert data == str(i).encode()
        else:
            assert isinstance(data, storage.MissingObject)


def test_glob_files_lists_the_matching_objects(folder: str) -> None:
    for name in ("a/1.jpg", "a/2.png", "b/3.jpg"):
        storage.write_bytes(storage.join(folder, name), b"x")
    matches = [e.uri.removeprefix(folder + "/") for e in storage.glob_files(storage.join(folder, "*/*.jpg"))]
    assert matches == ["a/1.jpg", "b/3.jpg"]


def test_a_remote_object_is_downloaded_once_per_content(
    s3_server: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSEMILL_CACHE", str(tmp_path))
    uri = f"{s3_server}/weights/net.bin"
    storage.write_bytes(uri, b"weights")
    first = storage.local_copy(uri)
    assert first.read_bytes() == b"weights"
    written = first.stat().st_mtime_ns
    assert storage.local_copy(uri) == first
    assert first.stat().st_mtime_ns == written
    storage.write_bytes(uri, b"other weights")
    assert storage.local_copy(uri).read_bytes() == b"other weights"


def test_refused_credentials_are_not_an_error_of_the_object(s3_server: str, monkeypatch) -> None:
    uri = f"{s3_server}/mine"
    storage.write_bytes(uri, b"x")
    other_user = fsspec.filesystem("s3", key="posemilltestkey", secret="another", skip_instance_cache=True)
    monkeypatch.setattr(filesystems, "filesystem", lambda protocol: other_user)
    with pytest.raises(storage.CredentialsRefused, match="refuses the credentials of this process"):
        storage.read_bytes(uri)
    assert not issubclass(storage.CredentialsRefused, PermissionError), "a PermissionError is attributed to the image"


def test_written_files_are_readable_by_others(tmp_path) -> None:
    uri = str(tmp_path / "x")
    storage.write_bytes(uri, b"x")
    assert os.stat(uri).st_mode & 0o044 == 0o044


def test_the_error_names_an_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="nosuch://"):
        storage.exists("nosuch://bucket/x")


@pytest.mark.parametrize("fault", FAULTS)
def test_transient_errors_are_retried(s3_server: str, s3_under_fire: S3Server, fault: str, tmp_path) -> None:
    proxy = s3_under_fire.faults
    uri = f"{s3_server}/transient/{fault}"
    data = os.urandom(300_000)
    proxy.share, proxy.kinds, proxy.stall_seconds = 0.2, (fault,), 0.2
    for i in range(4):
        storage.write_bytes(f"{uri}/{i}", data)
    with storage.open_write(f"{uri}/4") as stream:
        stream.write(data)
    assert [e.size for e in storage.list_files(uri)] == [len(data)] * 5
    assert all(content == data for content in storage.read_many(list(storage.list_files(uri)), len(data) + 1))
    with storage.open_read(f"{uri}/4") as stream:
        assert stream.read() == data
    assert storage.exists(f"{uri}/4")
    assert not storage.exists(f"{uri}/5")
    storage.delete(f"{uri}/4")
    proxy.share = 0.0
    assert not storage.exists(f"{uri}/4")
    assert proxy.done[fault]


def test_a_server_outage_of_seconds_is_not_a_missing_object(s3_server: str, s3_under_fire: S3Server) -> None:
    uri = f"{s3_server}/outage"
    storage.write_bytes(uri, b"here")
    s3_under_fire.kill()
    restart = threading.Timer(5, s3_under_fire.start)
    restart.start()
    assert storage.is_file(uri)
    restart.join()


@pytest.mark.parametrize("change", [b"HERE", b"longer"])
def test_the_error_names_an_object_that_changed_since_it_was_listed(folder: str, change: bytes) -> None:
    uri = storage.join(folder, "x.bin")
    storage.write_bytes(uri, b"here")
    (listed,) = storage.list_files(folder)
    assert storage.read_entry(listed, 100) == b"here"
    with storage.open_read(uri, listed=listed) as stream:
        assert stream.read() == b"here"
    assert storage.stat(uri)[:3] == listed[:3]
    time.sleep(0.01)
    storage.write_bytes(uri, change)
    with pytest.raises(storage.ChangedObject, match=r"x\.bin has changed"):
        storage.read_entry(listed, 100)
    with pytest.raises(storage.ChangedObject, match=r"x\.bin has changed"), storage.open_read(uri, listed=listed):
        pass


def listed_names(folder: Path) -> list[str]:
    return [entry.uri.removeprefix(f"{folder}/") for entry in storage.list_files(str(folder))]


def test_a_linked_folder_with_a_similar_name_is_listed(tmp_path: Path) -> None:
    (tmp_path / "in" / "photos2").mkdir(parents=True)
    (tmp_path / "in" / "photos").mkdir()
    (tmp_path / "in" / "photos" / "a.jpg").touch()
    (tmp_path / "in" / "photos2" / "more").symlink_to("../photos")
    assert listed_names(tmp_path / "in") == ["photos/a.jpg", "photos2/more/a.jpg"]


def test_a_link_to_a_folder_above_it_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1.jpg").touch()
    for name, target in (("self", "."), ("parent", ".."), ("root", "../.."), ("outside", "../../..")):
        (tmp_path / "in" / "a" / "b" / name).symlink_to(target)
    (tmp_path / "link").symlink_to("in")
    names = ["a/1.jpg", "a/b/outside", "a/b/parent", "a/b/root", "a/b/self"]
    assert listed_names(tmp_path / "in") == names
    assert listed_names(tmp_path / "link") == names


def test_folders_that_link_to_each_other_are_listed_once_per_link(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / f"{name}.jpg").touch()
        (tmp_path / "in" / name / "link").symlink_to(f"../{other}")
    assert listed_names(tmp_path / "in") == [
        "a/a.jpg", "a/link/b.jpg", "a/link/link", "b/b.jpg", "b/link/a.jpg", "b/link/link",
    ]  # fmt: skip


@pytest.mark.parametrize("supports_ranges", [True, False])
def test_a_large_file_on_a_web_server_is_read_in_parts(tmp_path: Path, supports_ranges: bool) -> None:
    """Without ranges it is copied; both ways give the same bytes."""
    content = np.random.default_rng(0).bytes(40 << 20)
    (tmp_path / "large.bin").write_bytes(content)
    (tmp_path / "small.bin").write_bytes(content[:1000])
    handler = type("Handler", (Ranges,), {"supports_ranges": supports_ranges, "sent": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with storage.open_read(f"{url}/large.bin", access="random") as file:
            file.seek(30 << 20)
            assert file.read(100) == content[30 << 20 : (30 << 20) + 100]
            file.seek(-7, 2)
            assert file.read() == content[-7:]
        assert (handler.sent < 1 << 20) == supports_ranges
        with storage.open_read(f"{url}/small.bin") as file:
            assert file.read() == content[:1000]
        if supports_ranges:
            with (
                pytest.raises(storage.ChangedObject, match="has changed"),
                storage.open_read(f"{url}/large.bin") as file,
            ):
                (tmp_path / "large.bin").write_bytes(content[: 20 << 20])
        server.shutdown()
