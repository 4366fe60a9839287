"""Image collections: a collection is planned as shards, and a shard is read as items, one per image."""

from pipeline.sources.manifest import Manifest, write_manifest
from pipeline.sources.plan import plan_collection
from pipeline.sources.read import collection_keys, read_items, read_shard, shard_keys
from pipeline.sources.shard import EncodedImage, Item, PlannedShard, Shard

__all__ = [
    "EncodedImage",
    "Item",
    "Manifest",
    "PlannedShard",
    "Shard",
    "collection_keys",
    "plan_collection",
    "read_items",
    "read_shard",
    "shard_keys",
    "write_manifest",
]
