"""Recursive listings and globs, in path order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import parsing
from pipeline.storage.filesystems import open_uri, with_retries
from pipeline.storage.objects import Entry, MissingObject, tag_of
from pipeline.storage.s3_listing import list_s3
from pipeline.storage.uris import is_local, native_path, portable_name


def list_files(prefix: str) -> Iterator[Entry]:
    """Every object below a folder or prefix, recursively, sorted by the characters of the path.

    The listing is streamed: some pages (object stores) or the folders on the current path (file systems) are in memory.
    The order is the same on every storage, so a collection gives the same shards wherever it is stored. A linked folder
    is listed like any other; a link that leads back to a folder above it is listed as one entry.

    Raises:
        MissingObject: the local folder does not exist. An empty prefix of an object store gives no entries.
    """
    fs, path = open_uri(prefix)
    if isinstance(fs, LocalFileSystem):
        if not os.path.isdir(path):
            raise MissingObject(f"{prefix}: no such folder")
        yield from _list_local(native_path(prefix.removeprefix("file://")).rstrip("/") or "/")
    elif hasattr(fs, "call_s3"):
        yield from list_s3(fs, path, prefix.split("://", 1)[0])
    else:
        yield from _list_walking(fs, path, prefix.split("://", 1)[0])


def _list_local(folder: str, linked_from: tuple[Path, ...] = ()) -> Iterator[Entry]:
    """The files below a folder; `linked_from` are the real paths of the folders whose links lead here."""
    # "name/" sorts as it does inside a whole path, so that depth-first order is path order.
    with os.scandir(folder) as entries:
        names = sorted(e.name + "/" if _is_folder(e, linked_from) else e.name for e in entries)
    for name in names:
        path = os.path.join(folder, name.rstrip("/"))
        if name.endswith("/"):
            here = (Path(os.path.realpath(folder)),) if os.path.islink(path) else ()
            yield from _list_local(path, linked_from + here)
        else:
            try:
                stat = os.stat(path)
            except OSError:  # a broken link is listed too: its image gets a row with status `missing`
                yield Entry(portable_name(path), -1, "")
            else:
                yield Entry(portable_name(path), stat.st_size, str(stat.st_mtime), stat.st_mtime)


def _is_folder(entry: os.DirEntry[str], linked_from: tuple[Path, ...]) -> bool:
    """Whether to list the content of an entry: a folder, or a link to one that does not lead back above itself."""
    if not entry.is_symlink():
        return entry.is_dir()
    target = os.path.realpath(entry.path)
    if not os.path.isdir(target):
        return False
    here = Path(os.path.realpath(os.path.dirname(entry.path)))
    return not any(path.is_relative_to(target) for path in (*linked_from, here))


def _list_walking(fs: fsspec.AbstractFileSystem, path: str, protocol: str) -> Iterator[Entry]:
    try:
        children = with_retries(f"{protocol}://{path}", lambda: fs.ls(path, detail=True))
    except FileNotFoundError:
        return
    infos = {}
    for child in children:
        if child["name"].rstrip("/") != path.rstrip("/"):
            infos[child["name"].rstrip("/") + ("/" if child["type"] == "directory" else "")] = child
    for name in sorted(infos):
        if name.endswith("/"):
            yield from _list_walking(fs, name.rstrip("/"), protocol)
        else:
            info = infos[name]
            uri = name if name.startswith(f"{protocol}://") else f"{protocol}://{name}"
            yield Entry(uri, int(info.get("size") or 0), tag_of(info))


def glob_files(pattern: str) -> list[Entry]:
    """The objects that match a glob (`*`, `?`, `[..]`, `**`), sorted by path."""
    fs, path = open_uri(pattern)
    with parsing(pattern, "a valid pattern"):
        matches = with_retries(pattern, lambda: fs.glob(path, detail=True))
    protocol = "" if is_local(pattern) else pattern.split("://", 1)[0] + "://"
    return [
        Entry(
            name if name.startswith(protocol) else protocol + name,
            int(info.get("size") or 0),
            tag_of(info),
        )
        for name, info in sorted(matches.items())
        if info["type"] == "file"
    ]
