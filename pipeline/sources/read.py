"""Read the items of a shard."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.sources.kinds import KINDS
from pipeline.sources.manifest import Manifest
from pipeline.sources.shard import Item, Shard


def collection_keys(manifest: Manifest) -> Iterator[str]:
    """The keys of all items of a collection; see `shard_keys`."""
    for shard in manifest.shards():
        yield from shard_keys(shard)


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
