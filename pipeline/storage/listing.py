"""Listings: every object below a place, in the order of the paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.filesystems import RETRY_POLICY, open_uri, with_retries
from pipeline.storage.objects import Entry, MissingObject, tag_of
from pipeline.storage.uris import is_local, native_path, portable_name


def list_files(prefix: str) -> Iterator[Entry]:
    """Every object below a folder or prefix, recursively, in the order of their paths' characters.

    Streams: at most one page (object stores) or one folder (file systems) is held at a time. The order is the same on
    every storage, so the same collection makes the same shards wherever it lies.

    Raises:
        MissingObject: a local folder that does not exist. An empty prefix of an object store lists nothing.
    """
    fs, path = open_uri(prefix)
    if isinstance(fs, LocalFileSystem):
        if not os.path.isdir(path):
            raise MissingObject(f"{prefix}: no such folder")
        yield from _list_local(native_path(prefix.removeprefix("file://")).rstrip("/") or "/")
    elif hasattr(fs, "call_s3"):
        yield from _list_s3(fs, path, prefix.split("://", 1)[0])
    else:
        yield from _list_walking(fs, path, prefix.split("://", 1)[0])


def _list_local(folder: str) -> Iterator[Entry]:
    # "name/" sorts as it does inside a whole path, so that depth-first order is path order.
    with os.scandir(folder) as entries:
        names = sorted(e.name + "/" if _is_folder(e) else e.name for e in entries)
    for name in names:
        path = os.path.join(folder, name.rstrip("/"))
        if name.endswith("/"):
            yield from _list_local(path)
        else:
            try:
                stat = os.stat(path)
            except OSError:  # a link to nowhere is an entry all the same; its reader will say that it is missing
                yield Entry(portable_name(path), -1, "")
            else:
                yield Entry(portable_name(path), stat.st_size, str(stat.st_mtime), stat.st_mtime)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A linked folder is walked, unless the link leads back above itself.
    if not entry.is_symlink():
        return entry.is_dir()
    target = os.path.realpath(entry.path)
    return os.path.isdir(target) and not os.path.realpath(os.path.dirname(entry.path)).startswith(target)


def _list_s3(fs: Any, path: str, protocol: str) -> Iterator[Entry]:
    bucket, _, key = path.partition("/")
    prefix = key.rstrip("/") + "/" if key else ""
    request: dict[str, str] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = RETRY_POLICY.call(lambda: fs.call_s3("list_objects_v2", **request))
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):  # folder markers of storage consoles
                uri, tag = f"{protocol}://{bucket}/{item['Key']}", item.get("ETag", "").strip('"')
                yield Entry(uri, item["Size"], tag, item["LastModified"].timestamp())
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _list_walking(fs: fsspec.AbstractFileSystem, path: str, protocol: str) -> Iterator[Entry]:
    try:
        children = RETRY_POLICY.call(lambda: fs.ls(path, detail=True))
    except FileNotFoundError:
        return
    named = {}
    for child in children:
        if child["name"].rstrip("/") != path.rstrip("/"):
            named[child["name"].rstrip("/") + ("/" if child["type"] == "directory" else "")] = child
    for name in sorted(named):
        if name.endswith("/"):
            yield from _list_walking(fs, name.rstrip("/"), protocol)
        else:
            info = named[name]
            uri = name if name.startswith(f"{protocol}://") else f"{protocol}://{name}"
            yield Entry(uri, int(info.get("size") or 0), tag_of(info))


def glob_files(pattern: str) -> list[Entry]:
    """The objects that match a glob (`*`, `?`, `[..]`, `**`), sorted by path."""
    fs, path = open_uri(pattern)
    found = with_retries(pattern, lambda: fs.glob(path, detail=True))
    protocol = "" if is_local(pattern) else pattern.split("://", 1)[0] + "://"
    return [
        Entry(
            name if name.startswith(protocol) else protocol + name,
            int(info.get("size") or 0),
            tag_of(info),
        )
        for name, info in sorted(found.items())
        if info["type"] == "file"
    ]
