"""Collections to plan and to read."""

from __future__ import annotations

import io
import tarfile
from typing import cast

from pipeline import storage
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources import EncodedImage, Manifest, Shard, plan_collection, read_shard, shard_keys, write_manifest
from support.images import encode, gradient

JPEG = encode(gradient())


def image(i: int) -> bytes:
    """A different JPEG file for each number: decoders ignore bytes after the end marker."""
    return JPEG + str(i).encode()


def plan(folder: str, uri: str, **settings: object) -> list[Shard]:
    manifest = storage.join(folder, "run", "manifest.parquet")
    write_manifest(manifest, plan_collection(InputSettings.model_validate({"uri": uri, **settings})))
    return list(Manifest(manifest).shards())


def read(shards: list[Shard], max_bytes: int = 10**6) -> list[EncodedImage]:
    """The items of the shards; their keys are those that `shard_keys` gives."""
    limits = DecodeLimits(max_megabytes=max_bytes / 1e6)
    items = [cast(EncodedImage, item) for shard in shards for item in read_shard(shard, limits)]
    assert [key for shard in shards for key in shard_keys(shard)] == [item.key for item in items]
    return items


def tar_bytes(members: dict[str, bytes], form: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=form) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()
