"""Plan a collection: list it and group its images into shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline import storage
from pipeline.coco.annotations import load_annotations
from pipeline.errors import UserError
from pipeline.settings.tree import InputSettings
from pipeline.sources.files import plan_files
from pipeline.sources.kinds import Kind, container_kind
from pipeline.sources.lists import read_list
from pipeline.sources.parquet import PARQUET_SUFFIXES, image_column, read_schema
from pipeline.sources.shard import PlannedShard

_CONTAINERS_AT_A_TIME = 16
_CHECKED_NAMES = 20  # at least one of the first names of a list must exist
_Keyed = tuple[str, storage.Entry]


def plan_collection(settings: InputSettings, without: str | None = None) -> Iterator[PlannedShard]:
    """The shards of a collection, in an order that depends only on its names. The collection is listed once.

    Containers (tar archives, Parquet files with images) have separate shards; loose files are grouped.

    Args:
        settings: the collection to annotate.
        without: a folder or prefix to exclude: the output of the run, if it is below the input.

    Raises:
        UserError: the input is not a collection, or an empty one.
        storage.MissingObject: the input does not exist.
    """
    uri = settings.uri
    if not uri:
        raise UserError("--input is not set; name a folder, prefix, glob, archive, list or annotation file")
    empty = True
    for shard in _plan(uri, settings, without):
        empty = False
        yield shard
    if empty:
        raise UserError(f"--input {uri}: no files found")


def _plan(uri: str, settings: InputSettings, without: str | None) -> Iterator[PlannedShard]:
    lower = uri.lower()
    if lower.endswith(".json"):
        file_names = (image["file_name"] for image in load_annotations(uri)["images"])
        return plan_files(_located(file_names, uri, settings.image_root), settings)
    if lower.endswith((".txt", ".csv")) or (lower.endswith(PARQUET_SUFFIXES) and _is_list(uri, settings.image_column)):
        names = read_list(uri, settings.image_column)
        return plan_files(_located(names, uri, settings.image_root), settings)
    output = None if without is None else without.rstrip("/") + "/"
    listed = ((key, entry) for key, entry in _list_input(uri) if output is None or not entry.uri.startswith(output))
    return _plan_listed(listed, settings)


def _is_list(uri: str, column: str | None) -> bool:
    return "*" not in uri and image_column(read_schema(uri), column) is None


def _list_input(uri: str) -> Iterator[_Keyed]:
    if any(c in uri for c in "*?[") and not storage.is_file(uri):
        root = uri[: min(uri.index(c) for c in "*?[" if c in uri)].rpartition("/")[0]
        return _keyed(storage.glob_files(uri), root)
    if storage.is_file(uri):
        return iter([(storage.basename(uri), storage.stat(uri))])
    return _keyed(storage.list_files(uri), uri)


def _keyed(entries: Iterable[storage.Entry], root: str) -> Iterator[_Keyed]:
    """Entries with their path below the root as key, without hidden files."""
    start = root.removeprefix("file://").rstrip("/") + "/"
    for entry in entries:
        key = entry.uri.removeprefix(start)
        if not any(part.startswith(".") for part in key.split("/")):
            yield key, entry


def _plan_listed(listed: Iterator[_Keyed], settings: InputSettings) -> Iterator[PlannedShard]:
    """The shards of listed entries in order. Containers are planned concurrently."""

    def loose(first: _Keyed) -> Iterator[_Keyed]:
        yield first
        for key, entry in listed:
            if container_kind(key) is not None:
                containers.append((key, entry))
                return
            yield key, entry

    # Loose files before and after a container are in separate shards, so that no container waits for them.
    containers: deque[_Keyed] = deque()
    planning: deque[Future[list[PlannedShard]]] = deque()
    with ThreadPoolExecutor(_CONTAINERS_AT_A_TIME) as pool:
        while True:
            item = containers.popleft() if containers else next(listed, None)
            if item is None:
                break
            kind = container_kind(item[0])
            if kind is not None:
                planning.append(pool.submit(_plan_container, kind, item, settings))
                if len(planning) >= 2 * _CONTAINERS_AT_A_TIME:
                    yield from planning.popleft().result()
            else:
                while planning:
                    yield from planning.popleft().result()
                yield from plan_files(loose(item), settings)
        while planning:
            yield from planning.popleft().result()


def _plan_container(kind: Kind, item: _Keyed, settings: InputSettings) -> list[PlannedShard]:
    return list(kind.plan([item], settings))


def _located(names: Iterable[str], list_uri: str, root: str | None) -> Iterator[_Keyed]:
    """The names of a list with their entries. Relative names are below the root, by default the folder of the list.

    Raises:
        UserError: none of the first names exists; the root is probably wrong.
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
        if storage.exists(uri) or len(pending) == _CHECKED_NAMES:
            checked = True
            _refuse_if_absent(pending, root)
            yield from pending
    if not checked and pending:
        _refuse_if_absent(pending, root)
        yield from pending


def _refuse_if_absent(first: list[_Keyed], root: str) -> None:
    if not storage.exists(first[-1][1].uri):
        raise UserError(
            f"none of the first {len(first)} listed images exists ({first[0][1].uri}, ...); names are relative to "
            f"{root}: set --input.image_root"
        )
