"""WHAT to annotate: a collection becomes shards, a shard becomes encoded images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from pipeline import storage
from pipeline.config import InputSettings
from pipeline.sources.files import plan_files, read_files
from pipeline.sources.lists import CocoIds, read_coco, read_list
from pipeline.sources.manifest import Manifest, write_manifest
from pipeline.sources.parquet import image_column, plan_parquet, read_parquet, read_schema
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard
from pipeline.sources.tar import TAR_SUFFIXES, plan_tar, read_tar

__all__ = [
    "CocoIds",
    "EncodedImage",
    "Manifest",
    "PlannedShard",
    "Shard",
    "plan_collection",
    "read_coco",
    "read_shard",
    "write_manifest",
]

_ARCHIVES_AT_A_TIME = 16
_LOOKED_AT_FIRST = 20
_Keyed = tuple[str, storage.Entry]


def plan_collection(settings: InputSettings, without: str | None = None) -> Iterator[PlannedShard]:
    """The shards of a collection, listed once, in an order that depends on its names alone.

    Containers (tar archives, Parquet files with images) come as they are met; loose files are grouped.

    Args:
        settings: what to annotate.
        without: a folder or prefix that is no part of it: the run's own output, where that lies below the input.

    Raises:
        ValueError: an input that is no collection, or an empty one; the text says what was expected.
        storage.MissingObject: an input that isn't there.
    """
    uri = settings.uri
    if not uri:
        raise ValueError("input.uri is none; name a folder, prefix, glob, archive, list or annotation file")
    empty = True
    for shard in _plan(uri, settings, without):
        empty = False
        yield shard
    if empty:
        raise ValueError(f"--input {uri}: no files there")


def _plan(uri: str, settings: InputSettings, without: str | None) -> Iterator[PlannedShard]:
    name = uri.lower()
    if name.endswith(".json"):
        listed = (image["file_name"] for image in read_coco(uri)["images"])
        return plan_files(_located(listed, uri, settings.image_root), settings.shard_size)
    if name.endswith((".txt", ".csv")) or (name.endswith(".parquet") and _is_list(uri, settings.image_column)):
        names = read_list(uri, settings.image_column)
        return plan_files(_located(names, uri, settings.image_root), settings.shard_size)
    output = None if without is None else without.rstrip("/") + "/"
    found = ((key, entry) for key, entry in _find(uri) if output is None or not entry.uri.startswith(output))
    return _plan_found(found, settings)


def _is_list(uri: str, column: str | None) -> bool:
    return "*" not in uri and image_column(read_schema(uri), column) is None


def _find(uri: str) -> Iterator[_Keyed]:
    if any(c in storage.basename(uri) or c in uri for c in "*?[") and not storage.is_file(uri):
        root = uri[: min(uri.index(c) for c in "*?[" if c in uri)].rpartition("/")[0]
        return _keyed(storage.glob_files(uri), root)
    if storage.is_file(uri):
        return iter([(storage.basename(uri), storage.stat(uri))])
    return _keyed(storage.list_files(uri), uri)


def _keyed(entries: Iterable[storage.Entry], root: str) -> Iterator[_Keyed]:
    """Entries with their path below the root as key; hidden files are left out."""
    start = root.removeprefix("file://").rstrip("/") + "/"
    for entry in entries:
        key = entry.uri.removeprefix(start)
        if not any(part.startswith(".") for part in key.split("/")):
            yield key, entry


def _plan_found(found: Iterator[_Keyed], settings: InputSettings) -> Iterator[PlannedShard]:
    """Shards of what a listing found. Archives are counted several at a time, and yielded in their order."""

    def loose(first: _Keyed) -> Iterator[_Keyed]:
        yield first
        for key, entry in found:
            if _is_container(key):
                containers.append((key, entry))
                return
            yield key, entry

    # Loose files before and after a container don't share a shard; a container never waits for them.
    containers: deque[_Keyed] = deque()
    counting: deque[Future[list[PlannedShard]]] = deque()
    with ThreadPoolExecutor(_ARCHIVES_AT_A_TIME) as pool:
        while True:
            item = containers.popleft() if containers else next(found, None)
            if item is None:
                break
            if _is_container(item[0]):
                counting.append(pool.submit(_plan_container, *item, settings))
                if len(counting) >= 2 * _ARCHIVES_AT_A_TIME:
                    yield from counting.popleft().result()
            else:
                while counting:
                    yield from counting.popleft().result()
                yield from plan_files(loose(item), settings.shard_size)
        while counting:
            yield from counting.popleft().result()


def _is_container(key: str) -> bool:
    return key.lower().endswith((*TAR_SUFFIXES, ".parquet"))


def _plan_container(key: str, entry: storage.Entry, settings: InputSettings) -> list[PlannedShard]:
    if not key.lower().endswith(".parquet"):
        return [plan_tar(key, entry)]
    try:
        column = image_column(read_schema(entry.uri), settings.image_column)
    except pa.ArrowInvalid:
        column = None
    except OSError as error:
        if error.errno is not None or isinstance(error, storage.MissingObject):
            raise
        column = None  # Arrow's word for a footer that makes no sense
    if column is None:  # a table without images, or a damaged one, is one unreadable entry, like any other file
        return list(plan_files([(key, entry)], 1))
    return list(plan_parquet(key, entry, column))


def _located(names: Iterable[str], list_uri: str, root: str | None) -> Iterator[_Keyed]:
    """Listed names with where they lie: as they are when absolute, else below the root or beside the list.

    Raises:
        ValueError: of the first names, none exists there: a wrong root rather than a bad collection.
    """
    if root is None:
        root = list_uri.rpartition("/")[0] or "."
    pending: list[_Keyed] = []
    checked = False
    for name in names:
        uri = name if "://" in name or name.startswith("/") else storage.join(root, name)
        storage.refuse_password(uri)
        keyed = (name, storage.Entry(uri, -1, ""))
        if checked:
            yield keyed
            continue
        pending.append(keyed)
        if storage.exists(uri) or len(pending) == _LOOKED_AT_FIRST:
            checked = True
            _refuse_if_absent(pending, root)
            yield from pending
    if not checked and pending:
        _refuse_if_absent(pending, root)
        yield from pending


def _refuse_if_absent(first: list[_Keyed], root: str) -> None:
    if not storage.exists(first[-1][1].uri):
        raise ValueError(
            f"none of the first {len(first)} listed images is there ({first[0][1].uri}, ...); the names are taken "
            f"relative to {root}: set input.image_root"
        )


def read_shard(shard: Shard, max_bytes: int) -> Iterator[EncodedImage]:
    """The entries of a shard in order, as many as were planned.

    Args:
        shard: what to read.
        max_bytes: an entry that is larger is not read.

    Raises:
        OSError: the storage failed.
        ValueError: the shard holds another number of entries than when it was planned.
    """
    read = {"files": read_files, "tar": read_tar, "parquet": read_parquet}[shard.kind]
    count = 0
    for image in read(shard, max_bytes):
        count += 1
        yield image
    if count != shard.num_images:
        raise ValueError(
            f"{shard.uris[0]} holds {count} images, but {shard.num_images} when it was planned; it has changed: "
            "start a new run directory"
        )
