"""The table of the kinds of shards: file suffixes, and the functions that plan and read each kind.

To add a kind of collection, write a module with a plan and a read function, and add a line to `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, Protocol

from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.files import file_keys, plan_files, read_files
from pipeline.sources.parquet import PARQUET_SUFFIXES, parquet_keys, plan_parquet, read_parquet
from pipeline.sources.shard import Item, PlannedShard, Shard
from pipeline.sources.tar import TAR_SUFFIXES, plan_tar, read_tar, tar_keys
from pipeline.sources.video.plan import VIDEO_SUFFIXES, plan_video
from pipeline.sources.video.read import read_video, video_keys
from pipeline.sources.zip import ZIP_SUFFIXES, plan_zip, read_zip, zip_keys
from pipeline.storage import Entry


class Read(Protocol):
    """Yields the items of a shard; with keys, those alone, without reading the others where the format allows it."""

    def __call__(
        self, shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None, /
    ) -> Iterator[Item]: ...


class Kind(NamedTuple):
    """One kind of shard.

    Attributes:
        suffixes: file name suffixes of the containers of this kind, lower case; empty for loose files.
        plan: makes the shards of a container, or of a group of loose files, from (key, entry) pairs.
        read: yields the items of a shard, or some of them.
        keys: yields the keys of these items, without their content.
    """

    suffixes: tuple[str, ...]
    plan: Callable[[Iterable[tuple[str, Entry]], InputSettings], Iterator[PlannedShard]]
    read: Read
    keys: Callable[[Shard], Iterator[str]]


KINDS: dict[str, Kind] = {
    "files": Kind((), plan_files, read_files, file_keys),
    "tar": Kind(TAR_SUFFIXES, plan_tar, read_tar, tar_keys),
    "zip": Kind(ZIP_SUFFIXES, plan_zip, read_zip, zip_keys),
    "parquet": Kind(PARQUET_SUFFIXES, plan_parquet, read_parquet, parquet_keys),
    "video": Kind(VIDEO_SUFFIXES, plan_video, read_video, video_keys),
}


_CONTAINER_SUFFIXES = tuple(suffix for kind in KINDS.values() for suffix in kind.suffixes)


def container_kind(key: str) -> Kind | None:
    """The kind of the container with this name; None if it is a loose file."""
    name = key.lower()
    if not name.endswith(_CONTAINER_SUFFIXES):  # most names of most collections
        return None
    return next(kind for kind in KINDS.values() if kind.suffixes and name.endswith(kind.suffixes))
