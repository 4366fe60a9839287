"""manifest.parquet: every shard of a run and its number of images. Written once, then only read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import parsing
from pipeline.sources.shard import PlannedShard, Shard, VideoRange

_VIDEO = pa.struct(
    [
        ("frames", pa.list_(pa.int64())),
        ("video_frames", pa.int64()),
        ("first_frame", pa.int64()),
        ("first_packet", pa.int64()),
        ("lead_packets", pa.int64()),
        ("num_packets", pa.int64()),
        ("anchor", pa.int64()),
        ("digest", pa.int64()),
        ("damaged", pa.list_(pa.int64())),
        ("section", pa.list_(pa.int64())),
        ("error", pa.string()),
    ]
)
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("keys", pa.list_(pa.string())),
        ("uris", pa.list_(pa.string())),
        ("sizes", pa.list_(pa.int64())),
        ("etags", pa.list_(pa.string())),
        ("num_images", pa.int64()),
        ("row_group", pa.int32()),
        ("column", pa.string()),
        ("video", _VIDEO),
    ]
)
_ENTRIES_PER_ROW_GROUP = 50_000
_FINGERPRINT = b"fingerprint"  # key of the metadata


def write_manifest(uri: str, planned: Iterable[PlannedShard], fingerprint: str | None = None) -> int:
    """Number the shards and write them to a Parquet file, with a bounded number in memory.

    The file is created only when all shards are planned: an interrupted planning leaves no manifest.

    Args:
        uri: of the file.
        planned: the shards in order.
        fingerprint: of the run, stored in the file.

    Returns:
        The number of shards.
    """
    count = 0
    schema = _SCHEMA.with_metadata({_FINGERPRINT: fingerprint}) if fingerprint else _SCHEMA
    with storage.open_write(uri) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        rows: list[dict[str, object]] = []
        entries = 0
        for position, shard in enumerate(planned):
            row = dict(shard.at(position).__dict__)
            rows.append(row | {"video": None if shard.video is None else shard.video.__dict__})
            entries += shard.num_images if shard.video else len(shard.keys)
            count += 1
            if entries >= _ENTRIES_PER_ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows, entries = [], 0
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return count


class Manifest:
    """The shards of a run.

    Attributes:
        num_images: number of images in all shards.
        fingerprint: of the run that it was planned for; None if it is not stored.
        counts: shard id to its number of images, in order.
        only_frames: whether all images are frames of videos.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with parsing(uri, "a manifest"), storage.open_read(uri) as stream:
            table = pq.read_table(stream, columns=["id", "num_images", "kind"], use_threads=False, pre_buffer=False)
        stored = (table.schema.metadata or {}).get(_FINGERPRINT)
        self.fingerprint = stored.decode() if stored else None
        self.counts: dict[str, int] = dict(zip(table["id"].to_pylist(), table["num_images"].to_pylist(), strict=True))
        self.num_images: int = pc.sum(table["num_images"]).as_py() or 0
        self.only_frames: bool = len(table) > 0 and table["kind"].unique().to_pylist() == ["video"]

    def __len__(self) -> int:
        return len(self.counts)

    def shards(self, without: Collection[str] = ()) -> Iterator[Shard]:
        """The shards in order, except those with an id in `without`; reads one row group of the file at a time."""
        with storage.open_read(self._uri) as stream, pq.ParquetFile(stream) as file:
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group, use_threads=False).to_pylist():
                    if row["id"] not in without:
                        for name in ("keys", "uris", "sizes", "etags"):
                            row[name] = tuple(row[name])
                        if (video := row.get("video")) is not None:
                            row["video"] = VideoRange(
                                **video | {name: tuple(video[name]) for name in ("frames", "damaged", "section")}
                            )
                        yield Shard(**row)
