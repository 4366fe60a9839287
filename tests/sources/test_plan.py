"""Which inputs are accepted, and how."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from s3fs import S3FileSystem
from support.s3 import S3_ENVIRONMENT
from support.sources import image, plan, read

from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings.paths import absolute_path
from pipeline.settings.tree import InputSettings
from pipeline.sources import plan_collection
from pipeline.storage.filesystems import filesystem


@pytest.mark.parametrize("name", ["a[1]", "what?", "all*", "[abc"])
def test_folders_whose_names_contain_wildcards_are_folders(folder: str, name: str) -> None:
    storage.write_bytes(storage.join(folder, name, "sub", "a.jpg"), image(0))
    assert [item.data for item in read(plan(folder, storage.join(folder, name)))] == [image(0)]
    assert [item.data for item in read(plan(folder, storage.join(folder, name, "sub/a.jpg")))] == [image(0)]


@pytest.mark.parametrize("data", [b"Rar!\x1a\x07\x00" + bytes(100), b"", b"text"])
@pytest.mark.parametrize("name", ["a.rar", "a.7z", "noext", "a.json.gz"])
def test_one_file_of_an_unknown_kind_is_refused(folder: str, name: str, data: bytes) -> None:
    uri = storage.join(folder, name)
    storage.write_bytes(uri, data)
    with pytest.raises(UserError, match=r"neither an image .* known are folders, archives, .*\.zip.*\.tsv.*\.json"):
        plan(folder, uri)


def test_one_image_without_a_suffix_is_an_image(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "photo"), image(0))
    assert [item.key for item in read(plan(folder, storage.join(folder, "photo")))] == ["photo"]


class _EmptyObjectAndPrefix(BaseHTTPRequestHandler):
    """S3 with the empty object `in` and the object `in/a.jpg`, which the server of the other tests cannot hold."""

    def do_HEAD(self) -> None:
        self._answer(b"" if self.path == "/bucket/in" else image(0))

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            entry = "<Key>in/a.jpg</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            size = f"<ETag>x</ETag><Size>{len(image(0))}</Size>"
            listing = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{entry}{size}</Contents>"
            self._answer(f"{listing}</ListBucketResult>".encode())
        else:
            self._answer(image(0))

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_a_prefix_that_is_also_an_empty_object_is_a_prefix(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _EmptyObjectAndPrefix)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}).items():
        monkeypatch.setenv(name, value)
    forget_connections()
    try:
        assert [item.data for item in read(plan(str(tmp_path), "s3://bucket/in"))] == [image(0)]
    finally:
        server.shutdown()
        forget_connections()


def forget_connections() -> None:
    filesystem.cache_clear()
    S3FileSystem.clear_instance_cache()


def test_frames_of_a_sequence_must_be_together(tmp_path: Path) -> None:
    """Else it would be found out after all networks have run."""
    names = ["walk/1.jpg", "run/1.jpg", "walk/2.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("\n".join(names))
    settings = {"uri": str(tmp_path / "list.txt"), "video": {"sequence_fps": 25}}
    with pytest.raises(UserError, match=r"sequence walk are not together: walk/2.jpg comes after frames of run; sort"):
        list(plan_collection(InputSettings.model_validate(settings)))
    assert list(plan_collection(InputSettings(uri=settings["uri"])))
    (tmp_path / "list.txt").write_text("\n".join([*sorted(names), "notes.txt"]))
    assert list(plan_collection(InputSettings.model_validate(settings)))


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        ({}, [8, 9, 10, 11, 12, 13, 14, 15, 20]),
        ({"every": 3}, [8, 11, 14, 20]),
        ({"fps": 10}, [8, 10, 13, 15]),  # at 0.32, 0.42, 0.52, 0.62, ... 0.82 seconds; 15 is the last until 0.72
        ({"fps": 100}, [8, 9, 10, 11, 12, 13, 14, 15, 20]),
    ],
    ids=str,
)
def test_frames_of_a_sequence_are_chosen_as_those_of_videos(chosen: dict, numbers: list[int], tmp_path: Path) -> None:
    """Names without zeros are not in the order of their numbers; images of no sequence are all there."""
    for name in [f"walk/{n}.jpg" for n in (*range(8, 16), 20)] + ["a.jpg", "z/cat.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    settings = {"uri": str(tmp_path), "video": {"sequence_fps": 25, **chosen}}
    keys = [key for shard in plan_collection(InputSettings.model_validate(settings)) for key in shard.keys]
    assert keys == ["a.jpg", *sorted(f"walk/{n}.jpg" for n in numbers), "z/cat.jpg"]


def test_schemes_may_be_upper_case(s3_folder: str, tmp_path) -> None:
    storage.write_bytes(storage.join(s3_folder, "in", "a.jpg"), image(0))
    shouted = s3_folder.replace("s3://", "S3://")
    uri = absolute_path(storage.join(shouted, "in"))
    assert [item.key for item in read(plan(s3_folder, uri))] == ["a.jpg"]
    storage.write_bytes(storage.join(s3_folder, "list.txt"), storage.join(shouted, "in", "a.jpg").encode())
    assert [item.data for item in read(plan(s3_folder, storage.join(s3_folder, "list.txt")))] == [image(0)]
    assert absolute_path(f"FILE://{tmp_path}") == str(tmp_path)
