"""Parts and tables in Parquet, and the folding of parts into tables.

A part has one row per image, with its people inside. The tables have one row per image and one row per person. Boxes
and keypoints are pixels of the upright original image; joints are in the order of the `skeleton` in the metadata.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, parsing
from pipeline.people import People
from pipeline.run.columns import people_from_arrow, people_to_arrow
from pipeline.skeletons import Skeleton

METADATA_KEY = b"posemill"
DERIVED_TABLES = ("tracks", "motion", "events")  # made from the others
WEAK = "weak"  # table of the people in frames of videos that count only if they continue a track

_IMAGE_FIELDS = [
    ("image_id", pa.string()),
    ("uri", pa.string()),
    ("coco_id", pa.int64()),
    ("sha256", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("orientation", pa.int8()),
    ("status", pa.string()),
    ("error", pa.string()),
    ("warning", pa.string()),
    ("video", pa.string()),
    ("frame", pa.int64()),
    ("pts", pa.int64()),
    ("seconds", pa.float64()),
    ("thumbnail", pa.binary()),
]
_NUM_WEAK = ("num_weak", pa.int32())


@dataclass
class ImageRow:
    """The columns of an image, without its people.

    Width and height are those of the upright image. `video` and the three after it place a frame in its video, see
    `FramePosition`; its thumbnail shows cuts, see `pipeline.tracking.cuts`.
    """

    image_id: str
    uri: str
    coco_id: int | None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    orientation: int | None = None
    status: str = "ok"
    error: str | None = None
    warning: str | None = None
    video: str | None = None
    frame: int | None = None
    pts: int | None = None
    seconds: float | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Totals:
    """Counts of a table file or of a whole run; they add up with `+`."""

    shards: int = 0
    images: int = 0
    people: int = 0
    with_coco_id: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.shards + other.shards,
            self.images + other.images,
            self.people + other.people,
            self.with_coco_id + other.with_coco_id,
            self.statuses + other.statuses,
        )


def skeleton_metadata(skeleton: Skeleton) -> dict[str, Any]:
    """The skeleton as JSON-compatible values for the metadata: names, limbs, mirror pairs, sigmas."""
    return asdict(skeleton)


def _people_column(people: Sequence[People], empty: People) -> pa.Array:
    """list<struct> with the people of each image."""
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in people])]).astype(np.int32)
    struct = people_to_arrow(People.concatenate([empty, *people])).to_struct_array().combine_chunks()
    return pa.ListArray.from_arrays(pa.array(offsets), struct)


def encode_part(
    rows: Sequence[ImageRow],
    people: Sequence[People],
    candidates: Sequence[People] | None,
    empty: People,
    metadata: Mapping[str, Any],
    weak: Sequence[People] | None = None,
) -> bytes:
    """A part's Parquet file.

    Args:
        rows: the images in the order of the shard.
        people: of each image.
        candidates: of each image before suppression; None to leave them out.
        empty: no people, with the joints and extra columns of all others, for a part without people.
        metadata: stored in the footer as JSON.
        weak: people of each frame that count only if they continue a track; None for images.
    """
    columns = [pa.array([getattr(row, name) for row in rows], kind) for name, kind in _IMAGE_FIELDS]
    names = [name for name, _ in _IMAGE_FIELDS]
    columns.append(_people_column(people, empty))
    names.append("people")
    for name, further in ((WEAK, weak), ("candidates", candidates)):
        if further is not None:
            columns.append(_people_column(further, empty))
            names.append(name)
    table = pa.table(columns, names=names).replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_footer(schema: pa.Schema) -> dict[str, Any]:
    """The metadata that `encode_part` and `fold_parts` store in the footer."""
    return json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))


@dataclass(frozen=True)
class Fold:
    """The parts that become one file of each table.

    Attributes:
        name: of the two files.
        parts: number of images that the part of each shard must have, by shard id.
    """

    name: str
    parts: dict[str, int]


def plan_folds(sizes: Mapping[str, int], counts: Mapping[str, int], megabytes: int) -> list[Fold]:
    """Group parts into files, in the order of the manifest.

    Args:
        sizes: bytes of each existing part, by shard id.
        counts: number of images of each shard of the manifest, by shard id.
        megabytes: size of the parts of a file; a larger part has a file to itself.
    """
    groups: list[dict[str, int]] = []
    filled = 0
    for shard, count in counts.items():
        if shard in sizes:
            if not groups or filled + sizes[shard] > megabytes << 20:
                groups.append({})
                filled = 0
            groups[-1][shard] = count
            filled += sizes[shard]
    return [Fold(f"{i:05d}-of-{len(groups):05d}.parquet", group) for i, group in enumerate(groups)]


def fold_parts(run_uri: str, fold: Fold, fingerprint: str) -> Totals:
    """Fold parts into one file of tables/images, tables/people, and with frames of videos tables/weak.

    One part at a time is in memory.

    Raises:
        UserError: a part is damaged, belongs to another run, or has another number of images than the manifest.
    """
    totals = Totals()
    writers: dict[str, pq.ParquetWriter] = {}
    with contextlib.ExitStack() as stack:
        for shard, count in fold.parts.items():
            part = _read_part(run_uri, shard, count, fingerprint)
            images, people = _image_table(part, shard), _people_table(part, "people")
            tables = {"images": images, "people": people}
            if WEAK in part.column_names:
                tables[WEAK] = _people_table(part, WEAK)
            for name, table in tables.items():
                if name not in writers:
                    file = stack.enter_context(storage.open_write(storage.join(run_uri, "tables", name, fold.name)))
                    writers[name] = stack.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
                writers[name].write_table(table)
            totals += Totals(
                shards=1,
                images=images.num_rows,
                people=people.num_rows,
                with_coco_id=images.num_rows - images["coco_id"].null_count,
                statuses=Counter(images["status"].to_pylist()),
            )
    return totals


def _read_part(run_uri: str, shard: str, count: int, fingerprint: str) -> pa.Table:
    uri = storage.join(run_uri, "parts", f"{shard}.parquet")
    try:
        # Without threads: one of pyarrow's that frees a Python buffer while the interpreter exits ends the process.
        part = pq.read_table(io.BytesIO(storage.read_bytes(uri)), use_threads=False, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri} is damaged ({error}); delete it and rerun jobs/annotate.py") from None
    metadata = read_footer(part.schema)
    if metadata.get("fingerprint") != fingerprint or metadata.get("shard") != shard:
        raise UserError(f"{uri} belongs to another run; delete it and rerun jobs/annotate.py")
    if part.num_rows != count:
        raise UserError(
            f"{uri} has {part.num_rows} images, the manifest has {count}; delete it and rerun jobs/annotate.py"
        )
    return part


def count_people(run_uri: str, shard: str) -> int:
    """The number of people in a part, from its footer."""
    uri = storage.join(run_uri, "parts", f"{shard}.parquet")
    with parsing(uri, "a part"), storage.open_read(uri, access="random") as stream:
        return int(read_footer(pq.read_schema(stream)).get("counts", {}).get("people", 0))


def _table_metadata(part: pa.Table) -> dict[bytes, bytes]:
    metadata = read_footer(part.schema)
    kept = {key: metadata[key] for key in ("fingerprint", "skeleton", "networks", "head", "compute") if key in metadata}
    return {METADATA_KEY: json.dumps(kept).encode()}


def _with_all_fields(table: pa.Table, wanted: Collection[str]) -> pa.Table:
    """Images with null columns in place of the wanted ones that an earlier version did not have."""
    for name, kind in (*_IMAGE_FIELDS, _NUM_WEAK):
        if name in wanted and name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    return table


def _image_table(part: pa.Table, shard: str) -> pa.Table:
    part = _with_all_fields(part, [name for name, _ in _IMAGE_FIELDS])
    table = part.select([name for name, _ in _IMAGE_FIELDS])
    table = table.append_column("num_people", pc.list_value_length(part["people"]))
    if WEAK in part.column_names:
        table = table.append_column(_NUM_WEAK[0], pc.list_value_length(part[WEAK]))
    table = _with_all_fields(table, [_NUM_WEAK[0]])
    table = table.append_column("shard", pa.array([shard] * part.num_rows, pa.string()))
    return table.replace_schema_metadata(_table_metadata(part))


def read_candidates(run_uri: str, shard: str, count: int, fingerprint: str) -> tuple[list[str], np.ndarray, People]:
    """The candidates of a part: its people before suppression.

    Returns:
        The ids of the I images, (I,) number of candidates of each, and the candidates of all images, image after image.

    Raises:
        UserError: the part is damaged, belongs to another run, or has no candidates.
    """
    part = _read_part(run_uri, shard, count, fingerprint)
    if "candidates" not in part.column_names:
        raise UserError(f"{run_uri} has no candidates; annotate with --output.candidates")
    candidates = part["candidates"].combine_chunks()
    flat = pc.list_flatten(candidates)
    table = pa.table({f.name: flat.field(i) for i, f in enumerate(flat.type)})
    return part["image_id"].to_pylist(), pc.list_value_length(candidates).to_numpy(), people_from_arrow(table)


def _people_table(part: pa.Table, column: str) -> pa.Table:
    """The people of a column, numbered in each image; weak ones come after the others."""
    people = part[column].combine_chunks()
    image = pc.list_parent_indices(people)
    flat = pc.list_flatten(people)
    lengths = pc.list_value_length(people).to_numpy()
    starts = pc.list_value_length(part["people"]).to_numpy() if column == WEAK else np.zeros(len(lengths), np.int32)
    numbers = [start + np.arange(count) for start, count in zip(starts, lengths, strict=True)]
    person = np.concatenate(numbers) if numbers else np.zeros(0)
    table = pa.table(
        {
            "image_id": part["image_id"].take(image),
            "coco_id": part["coco_id"].take(image),
            "person": pa.array(person, pa.int32()),
            **{f.name: flat.field(i) for i, f in enumerate(flat.type)},
        }
    )
    return table.replace_schema_metadata(_table_metadata(part))


def read_table(run_uri: str, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of `tables/<name>`, in the order of the manifest; one in memory at a time."""
    for file in table_names(run_uri, name):
        yield from read_file(run_uri, name, file, columns)


def read_file(run_uri: str, name: str, file: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of one file of a table; columns of images that an earlier version did not have are null."""
    uri = storage.join(run_uri, "tables", name, file)
    with parsing(uri, "a table"), storage.open_read(uri) as stream, pq.ParquetFile(stream) as table:
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, columns=list(columns) if columns else None, use_threads=False)
            yield _with_all_fields(rows, columns or ()) if name == "images" else rows


def image_ids(run_uri: str) -> Iterator[str]:
    """The `image_id` of every image of a reduced run."""
    for table in read_table(run_uri, "images", ["image_id"]):
        yield from table["image_id"].to_pylist()


def table_metadata(run_uri: str) -> dict[str, Any]:
    """The metadata of a reduced run: fingerprint, skeleton, networks and head; empty if the run has no tables."""
    for file in table_names(run_uri, "images"):
        uri = storage.join(run_uri, "tables", "images", file)
        with parsing(uri, "a table"), storage.open_read(uri) as stream:
            return read_footer(pq.read_schema(stream))
    return {}


def table_names(run_uri: str, name: str) -> list[str]:
    """The names of the files of `tables/<name>`, in the order of the manifest; none if it does not exist."""
    try:
        names = [storage.basename(entry.uri) for entry in storage.list_files(storage.join(run_uri, "tables", name))]
    except storage.MissingObject:  # a local folder without tables; object stores have an empty listing
        return []
    return [name for name in names if not name.startswith(".")]  # unfinished files of another driver


def keep_tables(run_uri: str, name: str, names: Collection[str]) -> None:
    """Delete the files of `tables/<name>` that have other names: they are of an earlier reduction."""
    for file in table_names(run_uri, name):
        if file not in names:
            storage.delete(storage.join(run_uri, "tables", name, file))


def has_metadata(uri: str, expected: Mapping[str, str]) -> bool:
    """Whether a table exists and its schema has this metadata."""
    if not storage.exists(uri):
        return False
    with parsing(uri, "a table"), storage.open_read(uri, access="random") as stream:
        stored = pq.read_schema(stream).metadata or {}
    return all(stored.get(key.encode()) == value.encode() for key, value in expected.items())


def table_skeleton(run_uri: str) -> Skeleton:
    """The skeleton of a reduced run's people.

    Raises:
        UserError: the run has no tables.
    """
    stored = table_metadata(run_uri).get("skeleton")
    if stored is None:
        raise UserError(f"{run_uri} has no tables yet; build them with jobs/reduce.py {run_uri}")
    pairs = {key: tuple(map(tuple, stored[key])) for key in ("limbs", "mirror_pairs")}
    return Skeleton(stored["name"], tuple(stored["joints"]), oks_sigmas=tuple(stored["oks_sigmas"]), **pairs)
