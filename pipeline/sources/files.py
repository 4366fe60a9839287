"""Loose files, one image per object: folders, prefixes, globs and lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice

from pipeline import storage
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard, too_large


def plan_files(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """Group (key, entry) pairs into shards of `shard_size` images, in order."""
    iterator = iter(entries)
    for first in iterator:
        group = list(chain([first], islice(iterator, settings.shard_size - 1)))
        yield PlannedShard(
            kind="files",
            keys=tuple(key for key, _ in group),
            uris=tuple(entry.uri for _, entry in group),
            sizes=tuple(entry.size for _, entry in group),
            etags=tuple(entry.etag for _, entry in group),
            num_images=len(group),
        )


def file_keys(shard: Shard) -> Iterator[str]:
    """The keys of the images of a shard."""
    return iter(shard.keys)


def read_files(shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None) -> Iterator[EncodedImage]:
    """The images of a shard in order, fetched concurrently; with `wanted` keys, those alone.

    Raises:
        OSError: the storage failed; not attributed to an image.
    """
    # The tag of a local file is its modification time, which changes when the collection is copied: compare sizes only.
    entries = {
        key: e._replace(etag="") if storage.is_local(e.uri) else e
        for key, e in zip(shard.keys, shard.entries, strict=True)
        if wanted is None or key in wanted
    }
    fetched = storage.read_many([e for e in entries.values() if e.size <= limits.max_bytes], limits.max_bytes + 1)
    for key, (uri, size, *_) in entries.items():
        data = b"" if size > limits.max_bytes else next(fetched)
        if isinstance(data, storage.MissingObject):
            yield EncodedImage(key, uri, None, "missing", "no such file or object")
        elif isinstance(data, storage.ChangedObject):  # the planned image no longer exists
            yield EncodedImage(key, uri, None, "missing", str(data)[:200])
        elif isinstance(data, PermissionError):
            yield EncodedImage(key, uri, None, "unreadable", "permission denied")
        elif isinstance(data, ValueError):  # no storage accepts this URI
            yield EncodedImage(key, uri, None, "unreadable", str(data)[:200])
        elif isinstance(data, Exception):
            if not uri.startswith(("http://", "https://")):
                raise data
            # A web list names many servers; an error of one concerns its images only.
            yield EncodedImage(key, uri, None, "missing", f"{type(data).__name__}: {data}"[:200])
        elif size > limits.max_bytes or len(data) > limits.max_bytes:
            yield too_large(key, uri, limits)
        else:
            yield EncodedImage(key, uri, data)
