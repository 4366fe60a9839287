"""Read the items of a shard."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline import storage
from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.sources.kinds import KINDS
from pipeline.sources.manifest import Manifest
from pipeline.sources.shard import Item, Shard

_CONTAINERS_AT_A_TIME = 16


def collection_keys(manifest: Manifest) -> Iterator[str]:
    """The keys of all items of a collection; see `shard_keys`. Containers are read concurrently.

    Those that have changed since planning are left out; reading them for annotation reports it.
    """

    def keys(shard: Shard) -> list[str]:
        try:
            return list(shard_keys(shard))
        except (storage.ChangedObject, storage.MissingObject):
            return []

    with ThreadPoolExecutor(_CONTAINERS_AT_A_TIME) as pool:
        reading: deque[Future[list[str]]] = deque()
        for shard in manifest.shards():
            reading.append(pool.submit(keys, shard))
            if len(reading) == 2 * _CONTAINERS_AT_A_TIME:
                yield from reading.popleft().result()
        for future in reading:
            yield from future.result()


def shard_keys(shard: Shard) -> Iterator[str]:
    """The keys of the items of a shard, in order; see `Item`. Costs the headers of an archive, not its images.

    Raises:
        OSError: the storage failed.
        UserError: a container has changed since the shard was planned.
    """
    return KINDS[shard.kind].keys(shard)


def read_shard(shard: Shard, limits: DecodeLimits = DecodeLimits()) -> Iterator[Item]:
    """The items of a shard in order, `shard.num_images` of them.

    Args:
        shard: the shard to read.
        limits: larger files are not read; their items have the status `too_large`.

    Raises:
        OSError: the storage failed.
        UserError: the number of items has changed since the shard was planned.
    """
    count = 0
    for item in KINDS[shard.kind].read(shard, limits):
        count += 1
        yield item
    if count != shard.num_images:
        raise UserError(
            f"{shard.uris[0]} has changed: {shard.num_images} images when it was planned, now {count}; start a new run "
            "directory"
        )


def read_items(shard: Shard, keys: Collection[str], limits: DecodeLimits = DecodeLimits()) -> Iterator[Item]:
    """Some items of a shard, in its order; the others are not read where the format allows it.

    Args:
        shard: the shard to read.
        keys: of the items; those that the shard does not have are left out.
        limits: see `read_shard`.

    Raises:
        OSError: the storage failed.
        UserError: a container has changed since the shard was planned.
    """
    missing = set(keys)
    for item in KINDS[shard.kind].read(shard, limits, keys):
        yield item
        missing.discard(item.key)
        if not missing:
            return
