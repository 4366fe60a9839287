"""A shard becomes items."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.sources.kinds import KINDS
from pipeline.sources.shard import Item, Shard


def read_shard(shard: Shard, limits: DecodeLimits = DecodeLimits()) -> Iterator[Item]:
    """The items of a shard in order, as many as were planned.

    Args:
        shard: what to read.
        limits: larger files are not read.

    Raises:
        OSError: the storage failed.
        UserError: the shard holds another number of items than when it was planned.
    """
    count = 0
    for item in KINDS[shard.kind].read(shard, limits):
        count += 1
        yield item
    if count != shard.num_images:
        raise UserError(
            f"{shard.uris[0]} holds {count} images, but held {shard.num_images} when it was planned: it has changed; "
            "start a new run directory"
        )
